"""Top and bottom tokens of decoder directions, per latent and model, as the report shows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.data.tokens import TokenSet
from crossdiff.io.artifacts import MANIFEST, read_manifest
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.models.unembedding import load_unembedding

COUNT = 10
MODELS = ("base", "tuned")
Logits = dict[str, dict[str, list[tuple[str, float]]]]
"""model -> `top` and `bottom` -> (token, effect)."""


def direction_logits(
    crosscoder: Crosscoder, latents: Sequence[int], parents: Mapping[str, Path], token_set: TokenSet
) -> tuple[list[Logits], list[str]]:
    """The logits of each latent, and a notice per model whose unembedding could not be read."""
    found: list[Logits] = [{} for _ in latents]
    notices = []
    for index, name in enumerate(MODELS):
        try:
            model, path = harvested_model(parents[f"harvest_{name}"], parents.get("organism"))
            head = load_unembedding(model, path, vocab_size=len(token_set.tokenizer))
        except ValueError as error:
            notices.append(f"no logits of the {name} model: {error}")
            continue
        directions = crosscoder.decoder[torch.tensor(list(latents), dtype=torch.int64), index].detach().cpu()
        for place, (top, bottom) in enumerate(head.ends(directions, count=COUNT)):
            found[place][name] = {"top": _shown(token_set, top), "bottom": _shown(token_set, bottom)}
    return found, notices


def harvested_model(harvest: Path, organism: Path | None) -> tuple[ModelSettings, str]:
    """The model that a harvest read, and its folder or hub id."""
    if not (harvest / MANIFEST).is_file():
        raise ValueError(f"{harvest} has no {MANIFEST} that names its model")
    model = ModelSettings.model_validate(read_manifest(harvest)["inputs"]["model"])
    return model, resolve(model, organism)


def _shown(token_set: TokenSet, ends: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
    ids = torch.tensor([token for token, _ in ends], dtype=torch.int64)
    return list(zip(token_set.token_strings(ids), (value for _, value in ends), strict=True))
