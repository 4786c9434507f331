"""Nearest latents by decoder direction, inside a pair and in the other pairs.

A latent is compared by the direction of the model it belongs to: tuned, or base for a base-exclusive one.
Directions are those of the normalised space; one scalar per model separates it from raw units, so cosines
agree between pairs that read the same layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.core.checkpoint import WEIGHTS
from crossdiff.core.latent_table import BASE, TUNED
from crossdiff.report.sources import PairSource

BLOCK = 8192
N_NEAREST = 5
Queries = Float[Tensor, "query d_model"]


def neighbours(pairs: Mapping[str, PairSource]) -> dict[str, dict[int, list[dict[str, Any]]]]:
    """pair -> listed latent -> `{"pair", "latent", "cosine"}`: five of its own pair, then one per other pair.

    Empty for a pair whose crosscoder is not among the artifacts.
    """
    found: dict[str, dict[int, list[dict[str, Any]]]] = {}
    for name, pair in pairs.items():
        found[name] = {int(entry["latent"]): [] for entry in pair.selected()}
        for model in (TUNED, BASE):
            latents = [int(entry["latent"]) for entry in pair.selected() if _model(entry["role"]) == model]
            if not latents or weights_of(pair) is None:
                continue
            queries = directions(pair, latents, model=model)
            others = [name, *(other for other in pairs if other != name)]
            for other in others:
                _add(found[name], latents, queries, pairs[other], model=model, own=other == name)
    return found


def _model(role: str) -> int:
    return BASE if role == "exclusive_base" else TUNED


def _add(
    found: dict[int, list[dict[str, Any]]],
    latents: list[int],
    queries: Queries,
    pair: PairSource,
    *,
    model: int,
    own: bool,
) -> None:
    path = weights_of(pair)
    if path is None:
        return
    cosine, index = nearest(path, queries, model=model, count=N_NEAREST + 1 if own else 1)
    for latent, values, places in zip(latents, cosine.tolist(), index.tolist(), strict=True):
        rows = [
            {"pair": pair.name, "latent": place, "cosine": round(value, 3)}
            for value, place in zip(values, places, strict=True)
            if not (own and place == latent) and value == value
        ]
        found[latent] += rows[:N_NEAREST]


def weights_of(pair: PairSource) -> Path | None:
    """The crosscoder's weights file, if the artifact is at hand."""
    if pair.crosscoder is None or not (pair.crosscoder / WEIGHTS).is_file():
        return None
    return pair.crosscoder / WEIGHTS


def directions(pair: PairSource, latents: list[int], *, model: int) -> Queries:
    """Unit directions of `latents` in one model; only their rows are read."""
    from safetensors import safe_open

    with safe_open(str(weights_of(pair)), framework="pt") as handle:
        decoder = handle.get_slice("decoder")
        rows = torch.stack([decoder[latent : latent + 1, model][0] for latent in latents])
    return torch.nn.functional.normalize(rows, dim=-1)


def nearest(
    path: Path, queries: Queries, *, model: int, count: int
) -> tuple[Float[Tensor, "query near"], Float[Tensor, "query near"]]:
    """Cosine and number of the `count` nearest latents, read in blocks; none where the width differs."""
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
