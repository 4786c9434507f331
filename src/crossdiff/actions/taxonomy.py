"""`action=taxonomy`: show, induce or extend a taxonomy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from crossdiff.annotation.annotators import AnnotationRun
from crossdiff.config import Experiment
from crossdiff.io.environment import choose_device
from crossdiff.io.tables import read_jsonl
from crossdiff.pipeline.plan import plan
from crossdiff.settings import Runtime
from crossdiff.stages.annotate import induced, open_run
from crossdiff.taxonomy.scheme import OTHER, InducedTaxonomy, Taxonomy, extended, load_taxonomy


def perform(experiments: Sequence[Experiment]) -> int:
    """Carry out `freeze.mode` for one experiment; returns the exit code."""
    if len(experiments) > 1:
        raise ValueError(f"action=taxonomy takes one run, this command has {len(experiments)}; leave -m out")
    (experiment,) = experiments
    match experiment.freeze.mode:
        case "show":
            return _show(experiment)
        case "induce":
            sizes = experiment.taxonomy
            wanted = sizes if isinstance(sizes, InducedTaxonomy) else InducedTaxonomy()
            _, run = _open_run(experiment)
            with closing(run):
                return _freeze(induced(run, wanted), experiment.freeze.file)
        case "extend":
            return _extend(experiment)


def _show(experiment: Experiment) -> int:
    """Print classes, categories and definitions, with counts of latents where the run is finished."""
    folder = _annotated(experiment)
    taxonomy = _taxonomy(experiment, folder)
    rows = [] if folder is None else read_jsonl(folder / "annotations.jsonl")
    counts = Counter(row["category"] for row in rows if row["role"].startswith("exclusive"))
    print(f"{taxonomy.name} (hash {taxonomy.hash}): {taxonomy.provenance}")
    for group in taxonomy.classes:
        print(f"{group.name}: {group.title}")
        for category in group.categories:
            count = f" [{counts[category.name]} latents]" if rows else ""
            print(f"  {category.name}{count}: {category.definition}")
    if rows:
        print(f"{OTHER} [{counts[OTHER]} latents]")
    return 0


def _annotated(experiment: Experiment) -> Path | None:
    """The finished annotate artifact, or None."""
    step = next(step for step in plan(experiment) if step.stage == "annotate")
    return step.folder(experiment.store) if step.is_finished(experiment.store) else None


def _taxonomy(experiment: Experiment, folder: Path | None) -> Taxonomy:
    """The frozen taxonomy of the run; before the run, the one that its settings name."""
    if folder is not None:
        return load_taxonomy(folder / "taxonomy.yaml")
    if isinstance(experiment.taxonomy, InducedTaxonomy):
        raise ValueError(
            "taxonomy=induced is made by the run, which is not finished; give action=run, or "
            "freeze.mode=induce to make one now"
        )
    return experiment.taxonomy.load()


def _open_run(experiment: Experiment) -> tuple[list, AnnotationRun]:
    """The blind run over the finished documents of all pairs."""
    runtime = Runtime(
        store=experiment.store, device=choose_device(experiment.device), progress=experiment.progress
    )
    steps = [step for step in plan(experiment) if step.stage == "documents"]
    folders = {step.label: step.finished_folder(experiment.store) for step in steps}
    return open_run(folders, experiment.annotator, experiment.seed, runtime)


def _extend(experiment: Experiment) -> int:
    """Add categories made from the latents that the finished run labelled `other`."""
    folder = _annotated(experiment)
    if folder is None:
        raise ValueError(
            "freeze.mode=extend reads a finished run's latents labelled `other`; give action=run first"
        )
    taxonomy = load_taxonomy(folder / "taxonomy.yaml")
    rows = read_jsonl(folder / "annotations.jsonl")
    others = {(row["pair"], row["latent"]) for row in rows if row["category"] == OTHER}
    blind, whole = _open_run(experiment)
    left = [
        subject
        for subject, candidate in blind
        if (candidate.pair, candidate.latent) in others and candidate.role.startswith("exclusive")
    ]
    n_new = experiment.freeze.n_new
    with closing(replace(whole, subjects=left)) as run:
        content = run.induce(sizes=(1, 1, n_new))
    return _freeze(extended(taxonomy, content, n_new=n_new), experiment.freeze.file)


def _freeze(taxonomy: Taxonomy, path: Path) -> int:
    if path.exists():
        raise ValueError(f"{path} exists; a frozen taxonomy is never overwritten, give another freeze.file")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(taxonomy.to_yaml(), encoding="utf-8")
    n_categories = len(taxonomy.categories)
    print(
        f"{path}: {len(taxonomy.classes)} classes, {n_categories} categories, hash {taxonomy.hash}\n"
        f"use it with taxonomy=file taxonomy.path={path}"
    )
    return 0
