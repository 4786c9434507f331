"""The finished steps in the store behind a results folder, and the pairs that they can open."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.data.corpus import DEFAULT_CONTEXT
from crossdiff.data.settings import MaskSettings
from crossdiff.data.tokens import TokenSet
from crossdiff.io.artifacts import MANIFEST, read_manifest
from crossdiff.io.environment import choose_device
from crossdiff.io.tables import read_json
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.notebook.open_model import OpenModel, found_again
from crossdiff.notebook.pair import OpenPair
from crossdiff.pipeline.results import SUMMARY
from crossdiff.pipeline.steps import Step, role

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class FinishedSteps:
    """Folders of a run's finished steps by role (`train_<pair>`, `annotate`).

    `summary` is the content of summary.json; empty for a run that has no results folder yet.
    """

    store: Path
    roles: Mapping[str, Path]
    summary: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of_results(cls, results: Path, store: Path | None = None) -> FinishedSteps:
        """The steps that summary.json of a results folder names, in `store` or where it says they are."""
        summary = _summary(results)
        rows = [(str(row["name"]), str(row["key"])) for row in summary.get("steps", [])]
        if not any(name.startswith("scale ") for name, _ in rows):
            inside = sorted(path.parent.name for path in results.glob(f"*/{SUMMARY}"))
            way_out = f"open one of its runs: {', '.join(inside)}" if inside else "open the results of a run"
            raise ValueError(f"{results} holds the answer of a study, which has no latents; {way_out}")
        place = _store_of(results, summary, rows, store)
        return cls(place, _roles(place, rows), summary)

    @classmethod
    def of_plan(cls, steps: Sequence[Step], store: Path) -> FinishedSteps:
        """The finished steps of a plan."""
        done = [(step.name, step.key) for step in steps if step.is_finished(store)]
        return cls(store, _roles(store, done))

    @property
    def pairs(self) -> list[str]:
        """Pairs with a crosscoder and a latent table; each crosscoder of an ensemble is one."""
        scaled = (role.removeprefix("scale_") for role in self.roles if role.startswith("scale_"))
        return [name for name in scaled if f"train_{name}" in self.roles]

    def inputs(self, role: str) -> dict[str, Any]:
        """Settings of a finished step, from its manifest."""
        return self.inputs_of(self.roles[role])

    def inputs_of(self, folder: Path) -> dict[str, Any]:
        """Settings of the step in `folder`."""
        return read_manifest(folder)["inputs"]

    def parent(self, folder: Path, role: str) -> Path | None:
        """The folder of a step's parent; None where it has no such parent or the store lost it."""
        key = read_manifest(folder).get("parents", {}).get(role)
        return None if key is None else next(iter(self.store.glob(f"*/{key}")), None)


def _summary(results: Path) -> dict[str, Any]:
    path = results / SUMMARY
    if not path.is_file():
        raise ValueError(
            f"{results} holds no {SUMMARY}, so it is not the results of a finished run; give the folder that "
            "`report:` named at the end of the run, such as results/demo"
        )
    try:
        summary = read_json(path)
    except ValueError as error:
        raise ValueError(
            f"{path} is not readable JSON ({error}); give the run's command again with action=render"
        ) from None
    if not isinstance(summary, dict):
        raise ValueError(f"{path} holds no object; give the run's command again with action=render")
    return summary


def _store_of(
    results: Path, summary: Mapping[str, Any], rows: Sequence[tuple[str, str]], given: Path | None
) -> Path:
    """The store in which every crosscoder and latent table of the run lies."""
    named = summary.get("store")
    near = [results / str(named)] if named else []
    near += [folder / "store" for folder in (results.parent, results.parent.parent, Path())]
    sought = [Path(given)] if given is not None else near
    needed = [(name.partition(" ")[0], key) for name, key in rows if name.startswith(("train ", "scale "))]
    for store in sought:
        if all((store / stage / key / MANIFEST).is_file() for stage, key in needed):
            return store.resolve()
    tried = ", ".join(dict.fromkeys(str(store.resolve()) for store in sought))
    raise ValueError(
        f"the steps of {results} are not in {tried}; say where they are with store=..., or give the run's "
        "command again, which makes them"
    )


def _roles(store: Path, rows: Iterable[tuple[str, str]]) -> dict[str, Path]:
    folders = {}
    for name, key in rows:
        stage, _, label = name.partition(" ")
        folder = store / stage / key
        if (folder / MANIFEST).is_file():
            folders[role(stage, label)] = folder
    return folders


def open_pair_of(
    steps: FinishedSteps,
    pair: str,
    in_use: MutableMapping[tuple, OpenModel],
    *,
    labels: pd.DataFrame,
    device: str,
) -> OpenPair:
    """`Run.open_pair`: models as the harvests read them, texts tokenised and masked as the corpus was.

    A model that is `in_use` is not loaded again.
    """
    chosen, train = choose_device(device), steps.roles[f"train_{pair}"]
    inputs = steps.inputs_of(train)
    models = []
    for name in ("base", "tuned"):
        asked = (*_harvested(steps, pair, name), inputs["layer"], chosen)
        models.append(in_use.setdefault(asked, OpenModel(*asked)))
    base, tuned = models
    corpus = steps.inputs("tokens").get("corpus") or {}
    tokens = TokenSet.open(steps.roles["tokens"])
    return OpenPair(
        base,
        tuned,
        Crosscoder.load(train / "crosscoder").to(chosen),
        tuned.tokenizer() if "ids" in tokens.unknown else tokens.tokenizer,
        mask=MaskSettings(**inputs.get("mask", {})),
        context=corpus.get("context", DEFAULT_CONTEXT),
        labels=labels,
    ).checked()


def _harvested(steps: FinishedSteps, pair: str, name: str) -> tuple[ModelSettings, str]:
    """Settings of a harvested model, and what `from_pretrained` is given: a blend lies in the store."""
    harvest = steps.parent(steps.roles[f"train_{pair}"], f"harvest_{name}")
    if harvest is None:
        raise ValueError(
            f"the store {steps.store} has lost the harvest that says which {name} model {pair} was trained "
            "on; open_pair(base, tuned, layer, crosscoder) takes the models by hand"
        )
    settings = ModelSettings.model_validate(steps.inputs_of(harvest)["model"])
    blend = steps.parent(harvest, "model")
    if blend is not None:
        return settings, str(blend / "model")
    settings = settings.model_copy(update={"path": found_again(settings.path, steps.store)})
    return settings, resolve(settings, steps.parent(harvest, "organism"))
