"""Facts for the card of an exported crosscoder: models, documents, figures, origin."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crossdiff.core.checkpoint import read
from crossdiff.io.artifacts import read_manifest
from crossdiff.io.tables import read_json
from crossdiff.pipeline.steps import Step

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
