"""The latent explorer's data: a light index of all listed latents, and one compressed chunk per latent.

A chunk holds each example's text once and only its active tokens, with codes quantised to 1..255 of the
latent's largest shown code (a 205 x 20 x 128 report stays near 3 MB; one span per token gave 52 MB).
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from typing import Any

from crossdiff.report.documents import by_latent, document_groups
from crossdiff.report.formatting import finite, significant
from crossdiff.report.sources import PairSource

MANY_GUESSES = ("detection", "fuzz")
"""Scores over many documents each."""
FIGURES = (
    "n_active", "n_documents", "density", "largest_code",
    "norm_base", "norm_tuned", "delta_norm", "decoder_cosine",
    "nu_error", "nu_error_low", "nu_error_high", "nu_reconstruction", "nu_reconstruction_low",
    "nu_reconstruction_high", "nu_activation",
)  # fmt: skip


def pack(
    pair: PairSource, *, n_examples: int, near: Mapping[int, list[dict[str, Any]]] | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Index rows for the list, and `latent -> base64(deflate(JSON))` for what opening one shows."""
    table = pair.latents.set_index("latent")
    notes = {(int(row["latent"]), row["role"]): row for row in pair.annotations}
    examples, top = by_latent(pair.examples), by_latent(pair.top)
    index, chunks = [], {}
    for entry in pair.selected():
        latent = int(entry["latent"])
        annotation = notes.get((latent, entry["role"]), {})
        figures = (
            {name: table.at[latent, name] for name in FIGURES if name in table}
            if latent in table.index
            else {}
        )
        kind = table.at[latent, "kind"] if latent in table.index and "kind" in table else None
        index.append(index_row(pair.name, entry, annotation, {**figures, "kind": kind}))
        detail = {
            "description": annotation.get("description"),
            "votes": annotation.get("votes") or {},
            "failed_votes": annotation.get("failed_votes") or {},
            "evidence": annotation.get("evidence") or [],
            "annotator": annotation.get("annotator"),
            "near": (near or {}).get(latent, []),
            "logits": entry.get("logits") or {},
            "histogram": entry.get("histogram"),
            "figures": {name: significant(value) for name, value in figures.items()},
            **document_groups(top.get(latent), examples.get(latent), n_shown=n_examples),
        }
        chunks[str(latent)] = compress(detail)
    return index, chunks


def index_row(
    pair: str, entry: dict[str, Any], annotation: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """What the list shows, sorts, filters and searches, for one latent."""
    return finite(
        {
            "pair": pair,
            "latent": int(entry["latent"]),
            "role": entry["role"],
            "kind": figures.get("kind"),
            "state": annotation.get("state"),
            "label": annotation.get("label"),
            "category": annotation.get("category"),
            "class": annotation.get("class"),
            "confidence": annotation.get("confidence"),
            "keywords": (annotation.get("keywords") or [])[:10],
            "scores": annotation.get("scores") or {},
            "score": score(annotation.get("scores") or {}),
            "density": significant(figures.get("density")),
            "delta_norm": significant(figures.get("delta_norm")),
            "nu_error": significant(figures.get("nu_error")),
            "nu_reconstruction": significant(figures.get("nu_reconstruction")),
        }
    )


def score(scores: Mapping[str, float | None]) -> float | None:
    """What the list filters and sorts by: the mean of detection and fuzz, of those that were taken.

    The intruder score is a single guess, right 1 time in 5 by chance, and is only shown.
    """
    taken = [value for name in MANY_GUESSES if (value := scores.get(name)) is not None]
    return significant(sum(taken) / len(taken)) if taken else None


def compress(data: Any) -> str:
    """base64 of the zlib stream of compact JSON; the page decodes it with DecompressionStream('deflate')."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode()
