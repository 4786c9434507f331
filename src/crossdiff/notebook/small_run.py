"""The whole pipeline on two models and some texts, from Python: `crossdiff.diff`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

from crossdiff.command_settings import LocalDispatch
from crossdiff.composition import composed as composed_config
from crossdiff.config import Experiment, load
from crossdiff.dispatch import local
from crossdiff.dispatch.loggers import tracker
from crossdiff.io.environment import choose_device, conf_dir
from crossdiff.io.progress import show_notices
from crossdiff.io.tables import write_jsonl
from crossdiff.models.pair import Dtype
from crossdiff.notebook.finished_steps import FinishedSteps
from crossdiff.notebook.open_model import saved
from crossdiff.notebook.run import Run
from crossdiff.notebook.texts import Text, records
from crossdiff.pipeline.checks import notices, refuse_missing_keys
from crossdiff.pipeline.cost import CPU_HOURS_ALLOWED, describe, remaining_cost
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.results import check_folder, publish_results
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime

SMALL = ("model_pair=custom", "corpus=files", "dictionary=toy", "training=toy", "sparsity=toy")
"""A small dictionary, trained for minutes (docs/own_pair.md); `settings` of the caller come after these."""


def diff(
    base: Any,
    tuned: Any,
    texts: Sequence[Text],
    layer: int,
    *,
    store: str | Path | None = None,
    results: str | Path | None = None,
    settings: Sequence[str] = (),
    name: str = "diff",
    tokenizer: Any = None,
    dtype: Dtype | None = None,
    device: str = "auto",
    progress: bool = True,
) -> Run:
    """Compare two models at one layer on texts of yours; returns the finished run.

    base, tuned  folder, hub id, or a loaded transformers model (which is saved into the store)
    texts        strings, or chats as lists of messages
    store        where finished steps are kept and found again; without one a folder that goes with the run
    results      folder of the report; `results/<name>_<layer>`, beside a temporary store unless given
    settings     as on the command line: `["dictionary.n_latents=512", "annotator=claude"]`
    tokenizer    of loaded models whose name leads to none
    dtype        of the forward pass; a loaded model's own, else bfloat16

    Steps have the keys of the same command. ValueError for what that would refuse.
    """
    keeps = TemporaryDirectory(prefix="crossdiff-") if store is None else None
    place = Path(keeps.name) / "store" if keeps else Path(str(store)).expanduser()
    folder = Path(results).expanduser() if results else place.parent / "results" / name if keeps else None
    corpus = _written(texts, place)
    known = dtype or _dtype_of(tuned) or _dtype_of(base)
    paths = [saved(model, place, tokenizer=tokenizer, dtype=known) for model in (base, tuned)]
    given = {
        "layer": layer, "name": name, "store": str(place), "device": device, "progress": progress,
        "results_dir": None if folder is None else str(folder), **_inputs(paths, known, corpus),
    }  # fmt: skip
    experiment = composed([*SMALL, *settings], given)
    _carry_out(experiment)
    return Run(FinishedSteps.of_results(experiment.results, place), experiment.results, keeps)


def _inputs(paths: Sequence[str], dtype: Dtype | None, corpus: Path) -> dict[str, Any]:
    """The models and the corpus as settings."""
    pair = {"base": paths[0], "tuned": paths[1], **({"dtype": dtype} if dtype else {})}
    return {"model_pair": pair, "corpus": {"paths": [str(corpus)]}}


def composed(overrides: Sequence[str], values: dict[str, Any]) -> Experiment:
    """The experiment of a command line, with `values` (nested) put in as they are, whatever they hold."""
    return load(composed_config(str(conf_dir()), overrides, values))


def _carry_out(experiment: Experiment) -> None:
    """Run the plan here and publish its report; refuse beforehand what could not end."""
    if not isinstance(experiment.dispatch, LocalDispatch) or experiment.study is not None:
        raise ValueError(
            "crossdiff.diff runs one pair, here; give the command line for SLURM and for studies"
        )
    steps = plan(experiment)
    check_folder(experiment.results)
    refuse_missing_keys(steps, experiment.store)
    device = choose_device(experiment.device)
    if device == "cpu" and experiment.device == "auto":
        _refuse_hours(steps, experiment)
    show_notices("plan", list(notices(experiment)))
    runtime = Runtime(store=experiment.store, device=device, progress=experiment.progress)
    with tracker(experiment.logger, group=experiment.title) as log:
        made = local.run_steps(steps, runtime, finished=partial(log.step_finished, store=experiment.store))
    rows, report = local.rows_of(steps, made), steps[-1].folder(experiment.store)
    publish_results(report, experiment.results, rows, store=experiment.store)
    log.published(experiment.results, rows, experiment.store)


def _refuse_hours(steps: Sequence[Step], experiment: Experiment) -> None:
    left = remaining_cost(steps, experiment.store)
    if left.cpu_hours is not None and left.cpu_hours > CPU_HOURS_ALLOWED:
        raise ValueError(
            f"no accelerator found, and this asks for {describe(left)}; give a smaller model, fewer texts or "
            "settings such as training.n_steps=..., or device='cpu' to run it here all the same"
        )


def _dtype_of(model: Any) -> Dtype | None:
    """The number format of a loaded model; None for a path, or where no harvest has it."""
    loaded = str(getattr(model, "dtype", "")).removeprefix("torch.")
    return next((name for name in get_args(Dtype) if name == loaded), None)


def _written(texts: Sequence[Text], store: Path) -> Path:
    """The texts as a file inside the store, in a folder named by their content."""
    lines = [
        {"id": record.id, ("text" if isinstance(record.content, str) else "messages"): record.content}
        for record in records(texts)
    ]
    digest = hashlib.sha256(json.dumps(lines).encode()).hexdigest()[:16]
    path = store / "notebook" / "texts" / digest / "texts.jsonl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        write_jsonl(lines, path)
    return path
