"""The part of the contenders' table that needs documents: every kind on the toy with a trigger."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.core.sparsity import LargestK
from crossdiff.io.tables import read_json, rows_of, where
from crossdiff.models.pair import ORGANISM, Comparison, ModelPair
from crossdiff.report.runs import RunProducts
from crossdiff.stages.represented import ROLES, RepresentedInputs
from crossdiff.stages.study import Asked, Changes, ExtraStep, From
from crossdiff.statistics.intervals import wilson_rate
from crossdiff.studies.contenders.isolation import IsolationInputs
from crossdiff.studies.planted.step import Contender
from crossdiff.studies.seed_null import against, interval_calls

if TYPE_CHECKING:
    import pandas as pd

REPRESENTED = "represented"
NULL, ISOLATION = "seeds_", "isolation_"
"""Beginnings of the names of a kind's run between two seeds, and of its isolation step."""
TRIPLE = ("pt", "it", "pt", "simpo")
"""Models of the two pairs."""
DRAWS = 100
"""Of the interval of a rank correlation that is not shown."""
UNCHANGED = 1e-9
"""Planted changes of less count as none."""


def asked_comparison(experiment: Asked) -> Comparison:
    """The two pairs of the toy; ValueError for other models, whose truth is not known."""
    given, pairs = experiment.comparison, experiment.pairs
    models = [model.path for pair in pairs for model in (pair.base, pair.tuned)]
    if not isinstance(given, Comparison) or models != [f"{ORGANISM}{name}" for name in TRIPLE]:
        raise ValueError(
            f"study.toy_kinds needs the toy's two pairs, and these are {' and '.join(p.name for p in pairs)} "
            f"({', '.join(models)}); give comparison=toy_it_vs_simpo, or study.toy_kinds=[] for planted "
            "activations alone"
        )
    return given


def changes(experiment: Asked, kind: Contender, *, trigger_share: float) -> Changes:
    """The experiment with this kind's architecture, sparsity and loss, on the toy with a trigger.

    Kinds that keep the largest k take the experiment's k and schedule, the others their penalty.
    """
    given = kind.dictionary.model_fields_set - {"n_latents"} | {"architecture"}
    own = {name: getattr(kind.dictionary, name) for name in given}
    sparsity, asked = kind.sparsity, experiment.sparsity
    if isinstance(sparsity, LargestK) and isinstance(asked, LargestK):
        names = set(LargestK.model_fields)
        sparsity = type(sparsity)(**{name: getattr(asked, name) for name in names})
    return {
        "dictionary": experiment.dictionary.model_copy(update=own),
        "sparsity": sparsity,
        "training": kind.training(experiment.training),
        "organism": experiment.organism.model_copy(update={"trigger_share": trigger_share}),
    }


def toy_runs(
    experiment: Asked, kinds: Sequence[Contender], *, trigger_share: float, null: bool
) -> dict[str, Changes]:
    """Per kind the comparison of both pairs, and of two seeds of the first pair where `null` asks for it."""
    comparison = asked_comparison(experiment)
    pair, seed, asked = comparison.reference, experiment.seed, {}
    for kind in kinds:
        own = changes(experiment, kind, trigger_share=trigger_share)
        asked[kind.name] = {**own, "comparison": comparison.model_copy(update={"n_seeds": 1, "without": ()})}
        if null:
            asked[f"{NULL}{kind.name}"] = {**own, "comparison": against(pair, seed, seed + 1)}
    return asked


def toy_extras(
    experiment: Asked, kinds: Sequence[Contender], *, trigger_share: float
) -> dict[str, ExtraStep]:
    """What the activations hold of the planted changes, and every kind's isolation score (second pair, whose
    model shows the behaviour more often) where there is a trigger."""
    shared = {"layer": experiment.layer, "mask": experiment.mask}
    reference, treatment = experiment.pairs
    steps = {}
    for kind in kinds if trigger_share else ():
        parents = _activations(kind.name, treatment)
        parents |= {stage: From(kind.name, stage, treatment.name) for stage in ("train", "scale")}
        inputs = IsolationInputs(seed=experiment.seed, **shared)
        steps[f"{ISOLATION}{kind.name}"] = ExtraStep("isolation", kind.name, inputs, parents)
    if kinds:
        models = (reference.base, reference.tuned, treatment.tuned)
        parents = {"tokens": From(kinds[0].name, "tokens"), "organism": From(kinds[0].name, "organism")}
        parents |= {r: From(kinds[0].name, "harvest", m.name) for r, m in zip(ROLES, models, strict=True)}
        steps[REPRESENTED] = ExtraStep("represented", "toy", RepresentedInputs(**shared), parents)
    return steps


def _activations(run: str, pair: ModelPair) -> dict[str, From | ExtraStep]:
    harvests = {"harvest_base": pair.base.name, "harvest_tuned": pair.tuned.name}
    parents: dict[str, From | ExtraStep] = {
        role: From(run, "harvest", name) for role, name in harvests.items()
    }
    return parents | {stage: From(run, stage) for stage in ("tokens", "organism")}


def toy_numbers(
    kind: str, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]
) -> dict[str, Any] | None:
    """A kind's figures on the toy; None where it has no run there."""
    from crossdiff.statistics.recovery import against_represented

    if kind not in runs:
        return None
    run = runs[kind]
    deltas, facts = run.deltas(), run.comparison or {}
    held = read_json(extras[REPRESENTED] / "represented.json")["categories"]
    calibration = against_represented(held, deltas, draws=DRAWS, seed=0)["against_represented"]
    null, isolation = runs.get(f"{NULL}{kind}"), extras.get(f"{ISOLATION}{kind}")
    return {
        "spearman": (facts.get("spearman") or {}).get("rho"),
        "n_labelled": facts.get("n_labelled"),
        **planted_changes(facts.get("planted") or (), deltas),
        "n_held": calibration["n_held"],
        "n_with_interval": calibration["n_with_interval"],
        "null": None if null is None else clear_share(null),
        "triggered": None if isolation is None else read_json(isolation / "isolation.json"),
    }


def planted_changes(planted: Sequence[Mapping[str, Any]], deltas: pd.DataFrame) -> dict[str, int]:
    """Planted categories whose 95 % interval lies on the side of the planted change, on the other side, and
    of categories without a change those whose interval excludes none."""
    truth = {row["name"]: row["change"] for row in planted}
    found = {"n_right": 0, "n_wrong": 0, "n_false": 0}
    for row in rows_of(where(deltas, level="category")):
        if row.name not in truth or not (row.ci_low > 0 or row.ci_high < 0):
            continue
        change = truth[row.name]
        if abs(change) <= UNCHANGED:
            found["n_false"] += 1
        else:
            found["n_right" if (row.ci_low > 0) == (change > 0) else "n_wrong"] += 1
    changed = [change for change in truth.values() if abs(change) > UNCHANGED]
    return {**found, "n_changed": len(changed), "n_kept": len(truth) - len(changed)}


def clear_share(run: RunProducts) -> dict[str, Any] | None:
    """Share of category intervals between two seeds that exclude no change, with Wilson's 95 % interval."""
    calls = interval_calls([run.deltas()])
    rate = wilson_rate(calls["n_clear"], calls["n_intervals"])
    return rate and {**calls, "share": rate["value"], "low": rate["low"], "high": rate["high"]}
