"""A store in which the annotation and the comparison of two toy pairs are finished, for tests of actions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossdiff import config
from crossdiff.io.artifacts import write_manifest
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from tests import composed
from tests.planted_documents import write_documents
from tests.report_artifacts import Store

PAIRS = ("toy_pt_it", "toy_pt_simpo")
TOPICS = {
    "toy_pt_it": ["translation"] * 6 + ["mathematics"] * 6,
    "toy_pt_simpo": ["translation"] * 3 + ["storytelling"] * 8 + ["mathematics"],
}


def asked_for(folder: Path) -> list[str]:
    """What the command line has to say to find the finished steps."""
    return [
        "comparison=toy_it_vs_simpo", "comparison.n_seeds=1", "corpus=toy", "layer=1",
        "draws=200", "progress=false", "device=cpu",
        f"store={folder}/store", f"results_dir={folder}/results",
    ]  # fmt: skip


def experiment(folder: Path, *overrides: str) -> config.Experiment:
    given = [*asked_for(folder), *overrides]
    return composed.experiment(*given)


def finished(
    folder: Path, *overrides: str, topics: Mapping[str, Sequence[str]] = TOPICS
) -> config.Experiment:
    """The experiment, with every step that the page needs finished in its store."""
    asked = experiment(folder, *overrides)
    invented = Store(folder / "invented", pairs=PAIRS)
    for pair in PAIRS:
        invented.pair(pair)
    for step in plan(asked):
        role = step.stage if step.stage == "tokens" else f"{step.stage}_{step.label}"
        target = step.folder(asked.store)
        if step.stage in ("annotate", "compare"):
            make(step, asked)
        elif step.stage == "documents" and not step.is_finished(asked.store):
            write_documents(target, step.label, [*topics[step.label]])
            _finish(step, asked)
        elif role in invented.parents and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.symlink_to(invented.parents[role])
        elif step.stage == "report" and not target.exists():
            target.mkdir(parents=True)
            _finish(step, asked)
    return asked


def make(step: Step, asked: config.Experiment) -> None:
    """Run one step here, unless it is finished."""
    if step.is_finished(asked.store):
        return
    target = step.folder(asked.store)
    target.mkdir(parents=True, exist_ok=True)
    parents = {
        role: parent.folder(asked.store)
        for role, parent in step.parents.items()
        if parent.folder(asked.store).exists()
    }
    step.definition.run(step.inputs, parents, target, Runtime(store=asked.store, progress=False))
    _finish(step, asked)


def _finish(step: Step, asked: config.Experiment) -> None:
    keys = {role: parent.key for role, parent in step.parents.items()}
    record = {"stage": step.stage, "label": step.label, "key": step.key, "inputs": step.inputs.identity()}
    write_manifest(step.folder(asked.store), {**record, "parents": keys, "counts": {}, "seconds": 1.0})
