"""The latent explorer's data: a light index of all listed latents, and one compressed chunk per latent.

A chunk holds each example's text once and only its active tokens, with codes quantised to 1..255 of the
latent's largest shown code (a 205 x 20 x 128 report stays near 3 MB; one span per token gave 52 MB).
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from crossdiff.report.formatting import finite
from crossdiff.report.frames import rows_of
from crossdiff.report.sources import PairSource

if TYPE_CHECKING:
    import pandas as pd

N_LEVELS = 255
MANY_GUESSES = ("detection", "fuzz")
"""Scores over many documents each."""
MAX_TEXT = 6000
"""Characters of one example kept in the page; the tokens around the peak stay."""

FIGURES = (
    "n_active", "n_documents", "density", "norm_base", "norm_tuned", "delta_norm", "decoder_cosine",
    "nu_error", "nu_error_low", "nu_error_high", "nu_reconstruction", "nu_reconstruction_low",
    "nu_reconstruction_high", "nu_activation",
)  # fmt: skip


def pack(
    pair: PairSource, *, n_examples: int, near: Mapping[int, list[dict[str, Any]]] | None = None
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Index rows for the list, and `latent -> base64(deflate(JSON))` for what opening one shows."""
    table = pair.latents.set_index("latent")
    notes = {(int(row["latent"]), row["role"]): row for row in pair.annotations}
    examples = {} if pair.examples is None else dict(list(pair.examples.groupby("latent")))
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
            **example_set(examples.get(latent), n_examples=n_examples),
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


def example_set(frame: pd.DataFrame | None, *, n_examples: int) -> dict[str, Any]:
    """The shown examples of one latent, top ones first, and how many there were."""
    if frame is None or frame.empty:
        return {"examples": [], "n_examples": 0, "peak": None}
    chosen = choose(frame, n_examples)
    peak = max((float(np.max(row.codes, initial=0.0)) for row in chosen), default=0.0)
    return {
        "examples": [pack_example(row, peak) for row in chosen],
        "n_examples": len(frame),
        "peak": significant(peak),
    }


def choose(frame: pd.DataFrame, n_examples: int) -> list[Any]:
    """At most `n_examples`: top and quantile examples in equal parts where both exist, in order of rank."""
    rows = sorted(rows_of(frame), key=lambda row: row.rank)
    top = [row for row in rows if row.source == "top"]
    quantile = sorted((row for row in rows if row.source != "top"), key=lambda row: -row.quantile)
    n_top = max(n_examples - len(quantile), min(len(top), -(-n_examples // 2)))
    return [*top[:n_top], *quantile[: n_examples - min(n_top, len(top))]]


def pack_example(row: Any, peak: float) -> dict[str, Any]:
    """One window: text once, `marks` [start, length, level] of active tokens, `template` [start, length]."""
    tokens, codes, kinds = list(row.tokens), [float(code) for code in row.codes], list(row.kinds)
    first, last = window(tokens, row.peak)
    marks, template, position = [], [], 0
    parts = [display(token) for token in tokens[first:last]]
    for token, code, kind in zip(parts, codes[first:last], kinds[first:last], strict=True):
        length = utf16_length(token)
        if code > 0 and peak > 0:
            level = min(N_LEVELS, max(1, math.ceil(code / peak * N_LEVELS)))
            space = len(token) - len(token.lstrip()) if token.strip() else 0
            marks.append([position + space, length - space, level])
        elif kind and template and template[-1][0] + template[-1][1] == position:
            template[-1][1] += length
        elif kind:
            template.append([position, length])
        position += length
    return {
        "id": str(row.document_id),
        "source": str(row.source),
        "quantile": int(row.quantile),
        "subset": str(row.subset),
        "start": int(row.start) + first,
        "cut": len(tokens) - (last - first),
        "code": significant(float(row.peak_code)),
        "text": "".join(parts),
        "marks": marks,
        "template": template,
    }


def window(tokens: Sequence[str], peak: int) -> tuple[int, int]:
    """The tokens [first, last) around the peak that fit into `MAX_TEXT` characters, at least the peak."""
    first = last = max(0, min(int(peak), len(tokens) - 1))
    budget = MAX_TEXT
    while budget > 0 and (first > 0 or last < len(tokens)):
        if last < len(tokens):
            budget -= len(tokens[last])
            last += 1
        if first > 0 and budget > 0:
            first -= 1
            budget -= len(tokens[first])
    return first, last


def display(token: str) -> str:
    """A token as it is shown; only very long ones are cut."""
    return token if len(token) <= MAX_TEXT else token[:MAX_TEXT] + "…"


def utf16_length(text: str) -> int:
    """Length as JavaScript counts it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def significant(value: Any) -> float | int | None:
    """Four significant digits, None for what is missing."""
    if value is None:
        return None
    if isinstance(value, int):
        return value
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, int):
        return value
    return float(f"{value:.4g}") if math.isfinite(value) else None


def compress(data: Any) -> str:
    """base64 of the zlib stream of compact JSON; the page decodes it with DecompressionStream('deflate')."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode()
