"""summary.json: a run's figures for other programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from crossdiff.annotation.results import ANSWERED
from crossdiff.io.tables import where
from crossdiff.report.formatting import finite
from crossdiff.report.sources import ComparisonSource, PairSource, Sources

VERSION = 1
NO_SETTING = frozenset(
    {"corpus_fingerprint", "tokenizer_fingerprint", "fingerprint", "layers", "model", "pair", "pairs",
     "reference", "treatment", "tokenizer", "content", "n_rows"}
)  # fmt: skip
"""Inputs of a stage that repeat another setting, or name the models."""


def summary(sources: Sources, *, setting_stages: Sequence[str]) -> dict[str, Any]:
    """`version`, `settings`, `pairs` and `comparison`; the pipeline adds `steps` when it publishes."""
    pairs = {
        name: difference_summary(pair) if "sign" in pair.latents else pair_summary(pair)
        for name, pair in sources.pairs.items()
    }
    comparison = None if sources.comparison is None else comparison_summary(sources.comparison)
    settings = settings_of(sources.provenance, setting_stages)
    return finite({"version": VERSION, "settings": settings, "pairs": pairs, "comparison": comparison})


def settings_of(provenance: Sequence[dict[str, Any]], setting_stages: Sequence[str]) -> dict[str, Any]:
    """Setting -> value of all that decide the results, by the command line's names (`dictionary.n_latents`).

    Read from the manifests of `setting_stages`, in this order. A group's name has the class of the chosen
    option (`sparsity: BatchTopK`), `models.<name>` a model's path, and `models.<name>.adapter`, `.towards`
    and `.distance` what was merged into it.
    """
    settings: dict[str, Any] = {}
    manifests = [entry for entry in provenance if entry.get("stage") in setting_stages]
    for entry in sorted(manifests, key=lambda entry: setting_stages.index(entry["stage"])):
        identity = dict(entry.get("identity") or {})
        if entry["stage"] == "harvest" and "model" in (entry.get("inputs") or {}):
            settings |= _origin(entry["inputs"]["model"])
        settings_of_step = {"organism" if name == "toy" else name: value for name, value in identity.items()}
        settings |= dict(
            _flat({name: value for name, value in settings_of_step.items() if name not in NO_SETTING})
        )
    settings.pop("settings", None)
    return settings


def _origin(model: dict[str, Any]) -> dict[str, Any]:
    """A model's checkpoint and revision, its adapter, and the model it was blended with."""
    name = f"models.{model['name']}"
    parts = ["adapter", *(("towards", "distance") if model.get("towards") is not None else ())]
    origins = {f"{name}.{part}": model[part] for part in parts if model.get(part) is not None}
    return {name: "@".join(filter(None, (model["path"], model["revision"]))), **origins}


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of nested values; lists as JSON text."""
    for name, value in values.items():
        match value:
            case dict():
                if "settings" in value:
                    yield f"{prefix}{name}", value["settings"]
                inner = {key: item for key, item in value.items() if key != "settings"}
                yield from _flat(inner, f"{prefix}{name}.")
            case list():
                yield f"{prefix}{name}", json.dumps(value, sort_keys=True)
            case _:
                yield f"{prefix}{name}", value


def comparison_summary(comparison: ComparisonSource) -> dict[str, Any]:
    """comparison.json; `recovered` is always a list {name, group, change}, without truth `group` is None."""
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
    """Figures of one pair; exclusive and labelled latents are counted for the tuned model."""
    latents, training = pair.latents, pair.training
    dead = len(where(latents, kind="dead"))
    n_latents = len(latents)
    return finite(
        {
            "fve_base": training.get("fve_base"),
            "fve_tuned": training.get("fve_tuned"),
            "fve_without_first_base": training.get("fve_without_first_base"),
            "fve_without_first_tuned": training.get("fve_without_first_tuned"),
            "l0": training.get("l0"),
            "dead_share": training.get("dead_share", dead / n_latents if n_latents else None),
            "k": training.get("k"),
            "n_latents": n_latents,
            "n_exclusive": len(pair.exclusive("tuned")),
            "n_exclusive_base": len(pair.exclusive("base")),
            "n_undecided": len(where(latents, call="undecided")),
            "n_dead": dead,
            "n_labelled": pair.n_labelled() if pair.annotated else None,
            "n_in_categories": pair.n_in_categories() if pair.annotated else None,
            "annotation_states": pair.states() if pair.annotated else None,
            "threshold": training.get("threshold"),
            "signature": pair.diagnostics.get("signature"),
            "n_steps": training.get("n_steps"),
        }
    )


def difference_summary(pair: PairSource) -> dict[str, Any]:
    """Figures of a difference dictionary (diff_sae): latents by sign; `n_exclusive` is null: no call."""
    signs = pair.diagnostics.get("signs") or {}
    labelled = {
        sign: sum(row["role"] == f"effect_{sign}" and row["state"] in ANSWERED for row in pair.annotations)
        for sign in ("up", "down")
    }
    training = ("fve_difference", "l0", "dead_share", "k", "threshold", "n_steps")
    return finite(
        {
            "architecture": "diff_sae",
            **{name: pair.training.get(name) for name in training},
            "n_latents": len(pair.latents),
            "n_dead": len(where(pair.latents, kind="dead")),
            "n_exclusive": None,
            **{f"n_{sign}": signs.get(sign) for sign in ("up", "down", "undecided")},
            "n_labelled": sum(labelled.values()) if pair.annotated else None,
            **{f"n_labelled_{sign}": count if pair.annotated else None for sign, count in labelled.items()},
        }
    )
