"""`action=export`: figures, tables, annotations or crosscoders of finished steps as files."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from crossdiff.actions.render import report_parts
from crossdiff.annotation.annotators import LEDGER
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.rating_sheet import inert
from crossdiff.annotation.settings import AnnotatorSettings, Lexical, OwnAnnotator, Replay, Transformers
from crossdiff.command_settings import ExportSettings
from crossdiff.config import Experiment
from crossdiff.core import checkpoint
from crossdiff.core.checkpoint import read
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.artifacts import read_manifest
from crossdiff.io.crosscoders.write import write_crosscoder
from crossdiff.io.tables import read_json, read_jsonl, write_text
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import PER_CROSSCODER, Step, role
from crossdiff.report.export import figures_of, tables_of
from crossdiff.report.neuronpedia import READ_VERSION, Place, write_neuronpedia
from crossdiff.report.sources import read_annotations, read_pair

CARD = """# Latents of {pairs} for Neuronpedia

Written by crossdiff (`export.what=neuronpedia`) in the layout that {version} reads: put the folder
`<model>/<source>` where your Neuronpedia instance keeps its exports (v1/), and import it there.

Every feature is a crosscoder latent that latent scaling calls exclusive to one model. `vector` is what a code
of 1 adds to the tuned model's residual stream after the block; `values` are codes. `creatorId` is the user
that a fresh Neuronpedia database has: replace it by yours. Source sets are written as PRIVATE.

Before you publish: the activations quote documents of your corpus, and models, data and labels may have
licences that ask for a notice or forbid this.
"""


def perform(experiments: Sequence[Experiment]) -> int:
    """Export `export.what` from finished steps; returns the exit code."""
    match experiments[0].export.what:
        case "checkpoint":
            return export_checkpoints(experiments)
        case "annotations":
            return export_annotations(experiments)
        case "neuronpedia":
            return export_neuronpedia(experiments)
        case "figures" | "tables":
            return export_report(experiments)


def export_report(experiments: Sequence[Experiment]) -> int:
    """Write `<export.folder>/<title>_<layer>/<name>.<format>` for every figure or table; returns 0."""
    settings = experiments[0].export
    for experiment in experiments:
        sources = report_parts(experiment).sources()
        folder = settings.folder / f"{experiment.title}_{experiment.layer}"
        match settings.chosen_format:
            case "png" | "svg" as image_format:
                written = figures_of(sources, folder, image_format=image_format)
            case "csv" | "tex" as table_format:
                written = tables_of(sources, folder, table_format=table_format)
            case other:
                raise AssertionError(f"{other} is no format of {settings.what}")
        print(f"{settings.what}: {len(written)} {settings.chosen_format} files in {folder}", flush=True)
    return 0


def export_checkpoints(experiments: Sequence[Experiment]) -> int:
    """Write one folder per trained pair and print its path; ValueError where a training is unfinished."""
    settings, named = experiments[0].export, _trained(experiments)
    if settings.hub_id is not None and len(named) > 1:
        raise ValueError(
            f"export.hub_id names one repository, and this command has {len(named)} crosscoders "
            f"({', '.join(named)}); give model_pair=... for one of them"
        )
    for name, step in named.items():
        written = _write(step, experiments[0].store, settings.folder / name, settings)
        print(f"checkpoint: {written}", flush=True)
    return 0


def _trained(experiments: Sequence[Experiment]) -> dict[str, Step]:
    """Folder name -> finished train step; `<pair>_<layer>`, with the key where names repeat."""
    trained: dict[str, Step] = {}
    for experiment in experiments:
        for step in plan(experiment):
            if step.stage != "train" or step in trained.values():
                continue
            if not step.is_finished(experiment.store):
                raise ValueError(
                    f"{step.name} (layer {experiment.layer}) is not finished in store={experiment.store}; "
                    "give the same command with action=run first"
                )
            name = f"{step.label}_{experiment.layer}"
            namesake = trained.get(name)
            if namesake is None or namesake.key != step.key:
                trained[name if namesake is None else f"{name}_{step.key[:8]}"] = step
    return trained


def _write(step: Step, store: Path, folder: Path, settings: ExportSettings) -> str:
    """Write the crosscoder in the chosen format; the folder, or the URL of the upload."""
    crosscoder, form = Crosscoder.load(step.folder(store) / "crosscoder"), settings.chosen_format
    assert form in ("crossdiff", "dictionary_learning", "saelens", "neelnanda")
    layer = getattr(step.inputs, "layer", None)
    write_crosscoder(crosscoder, folder, form, layer=layer, facts=card_facts(step, store))
    return checkpoint.push(folder, settings.hub_id) if settings.hub_id is not None else str(folder)


def export_annotations(experiments: Sequence[Experiment]) -> int:
    """Write `<title>_<layer>.annotations.*` per run, and `ledger.jsonl` where requests were sent."""
    settings = experiments[0].export
    settings.folder.mkdir(parents=True, exist_ok=True)
    for experiment in experiments:
        step = next(step for step in plan(experiment) if step.stage == "annotate")
        source = step.finished_folder(experiment.store) / "annotations.jsonl"
        name = f"{experiment.title}_{experiment.layer}.annotations.{settings.chosen_format}"
        if settings.chosen_format == "csv":
            _write_csv(source, settings.folder / name)
        else:
            shutil.copyfile(source, settings.folder / name)
        print(f"annotations: {settings.folder / name}", flush=True)
    for path in sorted({path for e in experiments if (path := ledger_path(e.annotator, e.store))}):
        target = settings.folder / "ledger.jsonl"
        with closing(Ledger(path, read_only=True)) as ledger:
            n_requests = ledger.export(target)
        print(f"ledger: {target} ({n_requests:,} requests)", flush=True)
    return 0


def ledger_path(annotator: AnnotatorSettings, store: Path) -> Path | None:
    """The annotator's ledger; None where the annotator has none, or has sent nothing yet."""
    if isinstance(annotator, Lexical | Transformers | OwnAnnotator):
        return None
    path = annotator.ledger if isinstance(annotator, Replay) else store / LEDGER
    return path if path.is_file() else None


def _write_csv(source: Path, target: Path) -> None:
    """One row per latent; lists and mappings as JSON, texts so that no spreadsheet runs them."""
    import pandas as pd

    rows = [{name: _cell(value) for name, value in row.items()} for row in read_jsonl(source)]
    pd.DataFrame(rows).to_csv(target, index=False)


def _cell(value: Any) -> Any:
    match value:
        case list() | dict():
            return json.dumps(value)
        case str():
            return inert(value)
    return value


FIGURES = {"fve_base": "FVE base", "fve_tuned": "FVE tuned", "l0": "L0", "threshold": "threshold", "k": "k"}


def card_facts(step: Step, store: Path) -> dict[str, str]:
    """Name -> text for a finished train step, without unknown facts."""
    inputs = [step.parents[role].inputs for role in ("harvest_base", "harvest_tuned") if role in step.parents]
    facts = {"Models, base first": ", ".join(_model(model_inputs.model) for model_inputs in inputs)}  # type: ignore[attr-defined]
    if "tokens" in step.parents:
        facts["Documents"] = _documents(step.parents["tokens"], store)
    facts["Figures on held-out tokens"] = _figures(step.folder(store) / "training.json")
    facts["Origin"] = _origin(step.folder(store) / "crosscoder")
    return {name: text for name, text in facts.items() if text}


def _model(model: Any) -> str:
    parts = (model.path, model.revision and f"@{model.revision}", model.adapter and f" with {model.adapter}")
    return "".join(part for part in parts if part)


def _documents(tokens: Step, store: Path) -> str:
    counts: dict[str, Any] = {}
    if tokens.is_finished(store):
        counts = read_manifest(tokens.folder(store)).get("counts", {})
    n_tokens = counts.get("n_tokens")
    return tokens.label if n_tokens is None else f"{tokens.label}, {n_tokens:,} tokens"


def _figures(path: Path) -> str:
    figures = read_json(path) if path.is_file() else {}
    known = [(name, figures[key]) for key, name in FIGURES.items() if figures.get(key) is not None]
    return ", ".join(f"{name} {value:.4g}" for name, value in known)


def _origin(folder: Path) -> str:
    """The file of an imported crosscoder, or the seed of a trained one."""
    metadata = read(folder).metadata
    imported = metadata.get("imported")
    if imported:
        return f"read from {imported['path']} ({imported['format']}), not trained by crossdiff"
    seed = (metadata.get("inputs") or {}).get("seed")
    return "trained by crossdiff" + ("" if seed is None else f", seed {seed}")


def _refuse_overwriting(target: Path, experiment: Experiment, written: dict[Path, str]) -> None:
    """ValueError where another grid point has written the same source."""
    if target in written:
        raise ValueError(
            f"{written[target]} and {experiment.results} would both be {target}; export them one by one, "
            "each with an export.folder of its own"
        )
    written[target] = str(experiment.results)


def export_neuronpedia(experiments: Sequence[Experiment]) -> int:
    """Write one source per pair into `export.folder`, and a card; ValueError where a pair is unfinished."""
    folder = experiments[0].export.folder
    names: list[str] = []
    written: dict[Path, str] = {}
    for experiment in experiments:
        steps, store = plan(experiment), experiment.store
        wanted = [step for step in steps if step.stage in (*PER_CROSSCODER, "annotate")]
        parents = {role(step.stage, step.label): step.finished_folder(store) for step in wanted}
        rows = read_annotations(parents)
        for pair in (member for group in experiment.members.values() for member in group):
            source = read_pair(pair.name, parents, rows)
            tuned = str(pair.tuned.adapter or pair.tuned.towards or pair.tuned.path)
            place = Place(re.split("[/:]", tuned.rstrip("/"))[-1], experiment.layer, pair.name)
            _refuse_overwriting(folder / place.model / place.source, experiment, written)
            crosscoder = Crosscoder.load(parents[f"train_{pair.name}"] / "crosscoder")
            raw = (crosscoder.decoder[:, -1] / crosscoder.normaliser.scale[-1]).detach()
            latents = [int(entry["latent"]) for entry in source.selection.get("latents", [])]
            vectors = {latent: raw[latent].tolist() for latent in latents}
            target, n_latents = write_neuronpedia(source, vectors, place, folder)
            names.append(pair.name)
            print(f"neuronpedia: {n_latents} latents in {target}", flush=True)
    write_text(CARD.format(pairs=", ".join(names), version=READ_VERSION), folder / "README.md")
    return 0
