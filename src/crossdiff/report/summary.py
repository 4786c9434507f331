"""summary.json: the figures of a run that other programs read (design.md section 4)."""

from __future__ import annotations

from typing import Any

from crossdiff.report.frames import where
from crossdiff.report.sources import ComparisonSource, PairSource, Sources
from crossdiff.report.words import finite

VERSION = 1


def summary(sources: Sources) -> dict[str, Any]:
    """`version`, `pairs` and `comparison`; the pipeline adds `steps` when it publishes the results."""
    pairs = {name: pair_summary(pair) for name, pair in sources.pairs.items()}
    comparison = None if sources.comparison is None else comparison_summary(sources.comparison)
    return finite({"version": VERSION, "pairs": pairs, "comparison": comparison})


def comparison_summary(comparison: ComparisonSource) -> dict[str, Any]:
    """comparison.json with `recovered` always a list {name, group, change}; without truth `group` is null."""
    facts = {key: value for key, value in comparison.facts.items() if key != "version"}
    facts |= {"reference": comparison.reference, "treatment": comparison.treatment}
    if not facts.get("recovered"):
        facts["recovered"] = [
            {"name": row.name, "group": None, "change": row.change}
            for row in comparison.rows()
            if not row.is_class
        ]
    facts.setdefault("planted", None)
    return facts


def pair_summary(pair: PairSource) -> dict[str, Any]:
    """Figures of one pair; `n_exclusive` and `n_labelled` count latents of the tuned model."""
    latents, training = pair.latents, pair.training
    dead = len(where(latents, kind="dead"))
    n_latents = len(latents)
    return finite(
        {
            "fve_base": training.get("fve_base"),
            "fve_tuned": training.get("fve_tuned"),
            "l0": training.get("l0"),
            "dead_share": training.get("dead_share", dead / n_latents if n_latents else None),
            "k": training.get("k"),
            "n_latents": n_latents,
            "n_exclusive": len(pair.exclusive("tuned")),
            "n_exclusive_base": len(pair.exclusive("base")),
            "n_undecided": len(where(latents, call="undecided")),
            "n_dead": dead,
            "n_labelled": pair.n_labelled() if pair.annotated else None,
            "annotation_states": pair.states() if pair.annotated else None,
            "threshold": training.get("threshold"),
            "n_steps": training.get("n_steps"),
        }
    )
