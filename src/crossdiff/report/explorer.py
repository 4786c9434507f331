"""The latent explorer's data: a light index of all listed latents, and one compressed chunk per latent.

A chunk holds each example's text once and only its active tokens, with codes quantised to 1..255 of the
latent's largest shown code (a 205 x 20 x 128 report stays near 3 MB; one span per token gave 52 MB).

Neighbours of a latent are the latents with the nearest decoder directions, in its pair and the other pairs,
in the base model for base-exclusive latents and else in the tuned model. Directions are in normalised space,
one scalar per model away from raw units, so cosines agree between pairs at the same layer.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.checkpoint import WEIGHTS, unit_directions
from crossdiff.core.latent_table import BASE, TUNED
from crossdiff.report import latent_columns
from crossdiff.report.documents import by_latent, document_groups
from crossdiff.report.formatting import finite, significant
from crossdiff.report.sources import PairSource

MANY_GUESSES = ("detection", "fuzz")
"""Scores over many documents, unlike the intruder score."""


def pack(
    pair: PairSource,
    *,
    n_examples: int,
    near: Mapping[int, list[dict[str, Any]]] | None = None,
    recurring: Mapping[tuple[str, int], dict[str, Any]] | None = None,
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Index rows for the list, and latent -> base64(deflate(JSON)) of its opened view."""
    rows = pair.listed().set_index("latent").to_dict("index")
    notes = {(int(row["latent"]), row["role"]): row for row in pair.annotations}
    examples, top = by_latent(pair.examples), by_latent(pair.top)
    index, chunks = [], {}
    for entry in pair.selected():
        latent = int(entry["latent"])
        row = rows.get(latent, {})
        annotation = notes.get((latent, entry["role"]), {})
        figures = latent_columns.figures_of(row)
        recurs = (recurring or {}).get((pair.name, latent), {})
        concept = {name: recurs[name] for name in ("found", "lead") if name in recurs}
        index.append(index_row(pair.name, entry, annotation, {**figures, "kind": row.get("kind")}) | concept)
        detail = {
            "description": annotation.get("description"),
            "votes": annotation.get("votes") or {},
            "failed_votes": annotation.get("failed_votes") or {},
            "evidence": annotation.get("evidence") or [],
            "annotator": annotation.get("annotator"),
            "near": [*recurs.get("twins", []), *(near or {}).get(latent, [])],
            "logits": entry.get("logits") or {},
            "histogram": entry.get("histogram"),
            "figures": figures,
            **document_groups(top.get(latent), examples.get(latent, ()), n_shown=n_examples),
        }
        chunks[str(latent)] = compress(detail)
    return index, chunks


def index_row(
    pair: str, entry: dict[str, Any], annotation: dict[str, Any], figures: dict[str, Any]
) -> dict[str, Any]:
    """One latent's row of the list, which shows, sorts, filters and searches it."""
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
            **{column.name: figures.get(column.name) for column in latent_columns.COLUMNS if column.first},
        }
    )


def score(scores: Mapping[str, float | None]) -> float | None:
    """The list's score: the mean of the detection and fuzz scores that were taken; None without any.

    The intruder score, one guess that is right 1 time in 5 by chance, is only shown.
    """
    taken = [value for name in MANY_GUESSES if (value := scores.get(name)) is not None]
    return significant(sum(taken) / len(taken)) if taken else None


def compress(data: Any) -> str:
    """base64 of the zlib stream of compact JSON; the page decodes it with DecompressionStream('deflate')."""
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(zlib.compress(text.encode("utf-8", "replace"), 9)).decode()


BLOCK = 8192
N_NEAREST = 5
Queries = Float[Tensor, "query d_model"]


def neighbours(pairs: Mapping[str, PairSource]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """Pair -> listed latent -> `{"pair", "latent", "cosine"}`: five of its pair, then one per other pair.

    Empty for a pair without the artifact of its crosscoder.
    """
    nearest: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for name, pair in pairs.items():
        nearest[name] = {int(entry["latent"]): [] for entry in pair.selected()}
        for model in (TUNED, BASE):
            latents = [int(entry["latent"]) for entry in pair.selected() if _model(entry["role"]) == model]
            if not latents or weights_of(pair) is None:
                continue
            queries = directions(pair, latents, model=model)
            others = [name, *(other for other in pairs if other != name)]
            for other in others:
                _add(nearest[name], latents, queries, pairs[other], model=model, same_pair=other == name)
    return nearest


def _model(role: str) -> int:
    return BASE if role == "exclusive_base" else TUNED


def _add(
    near: dict[int, list[dict[str, Any]]],
    latents: list[int],
    queries: Queries,
    pair: PairSource,
    *,
    model: int,
    same_pair: bool,
) -> None:
    path = weights_of(pair)
    if path is None:
        return
    cosine, index = nearest(path, queries, model=model, count=N_NEAREST + 1 if same_pair else 1)
    for latent, values, places in zip(latents, cosine.tolist(), index.tolist(), strict=True):
        rows = [
            {"pair": pair.name, "latent": place, "cosine": round(value, 3)}
            for value, place in zip(values, places, strict=True)
            if not (same_pair and place == latent) and value == value
        ]
        near[latent] += rows[:N_NEAREST]


def weights_of(pair: PairSource) -> Path | None:
    """The crosscoder's weights file; None without the artifact."""
    if pair.crosscoder is None or not (pair.crosscoder / WEIGHTS).is_file():
        return None
    return pair.crosscoder / WEIGHTS


def directions(pair: PairSource, latents: list[int], *, model: int) -> Queries:
    """Unit directions of `latents` in one model."""
    weights = weights_of(pair)
    assert weights is not None, f"{pair.name} has no weights here"
    return unit_directions(weights, latents, model=model)


def nearest(
    path: Path, queries: Queries, *, model: int, count: int
) -> tuple[Float[Tensor, "query near"], Float[Tensor, "query near"]]:
    """Cosine and index of the `count` nearest latents, read in blocks; empty where the width differs."""
    from safetensors import safe_open

    best = torch.full((len(queries), 0), torch.nan), torch.zeros((len(queries), 0), dtype=torch.int64)
    with safe_open(str(path), framework="pt") as handle:
        decoder = handle.get_slice("decoder")
        n_latents, _, width = decoder.get_shape()
        if width != queries.shape[1]:
            return best
        for start in range(0, n_latents, BLOCK):
            block = torch.nn.functional.normalize(decoder[start : start + BLOCK, model], dim=-1)
            cosine = torch.cat([best[0], queries @ block.T], dim=1)
            place = torch.arange(start, start + len(block)).expand(len(queries), -1)
            place = torch.cat([best[1], place], dim=1)
            values, chosen = cosine.topk(min(count, cosine.shape[1]), dim=1)
            best = values, place.gather(1, chosen)
    return best
