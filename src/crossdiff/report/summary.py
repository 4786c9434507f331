"""summary.json: the figures of a run that other programs read (design.md section 4)."""

from __future__ import annotations

from typing import Any

from crossdiff.report.sources import PairSource, Sources
from crossdiff.report.words import finite

VERSION = 1


def summary(sources: Sources) -> dict[str, Any]:
    """`version`, `pairs` and `comparison`; the pipeline adds `steps` when it publishes the results."""
    pairs = {name: pair_summary(pair) for name, pair in sources.pairs.items()}
    comparison = None if sources.comparison is None else {"recovered": [], "planted": None}
    if comparison is not None and sources.comparison is not None:
        facts = {key: value for key, value in sources.comparison.facts.items() if key != "version"}
        comparison |= facts
        comparison |= {"reference": sources.comparison.reference, "treatment": sources.comparison.treatment}
    return finite({"version": VERSION, "pairs": pairs, "comparison": comparison})


def pair_summary(pair: PairSource) -> dict[str, Any]:
    """Figures of one pair; `n_exclusive` and `n_labelled` count latents of the tuned model."""
    latents, training = pair.latents, pair.training
    dead = int((latents["kind"] == "dead").sum())
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
            "n_undecided": int((latents["call"] == "undecided").sum()),
            "n_dead": dead,
            "n_labelled": pair.states().get("ok", 0) if pair.annotated else None,
            "annotation_states": pair.states() if pair.annotated else None,
            "threshold": training.get("threshold"),
            "n_steps": training.get("n_steps"),
        }
    )
