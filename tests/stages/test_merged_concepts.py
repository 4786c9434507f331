"""Latents with near directions count once; the label is that of most of them."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from safetensors.torch import save_file

from crossdiff.stages.merged_concepts import merged_labels


def row(latent: int, category: str) -> dict[str, object]:
    return {"latent": latent, "category": category}


def test_a_chain_of_near_directions_is_one_concept_with_the_commonest_category(tmp_path: Path) -> None:
    # Tuned directions at 0, 60, 120, 240 degrees: cosine 0.5 between neighbours of the first three.
    angles = [math.radians(degrees) for degrees in (0, 60, 120, 240)]
    decoder = torch.zeros(5, 2, 2)
    decoder[:4, 1] = 3.0 * torch.tensor([[math.cos(angle), math.sin(angle)] for angle in angles])
    decoder[:, 0, 0] = 1.0  # in the base model all directions are one, which must not matter
    save_file({"decoder": decoder}, tmp_path / "weights.safetensors")
    rows = [row(3, "poetry"), row(1, "mathematics"), row(0, "translation"), row(2, "mathematics")]
    assert sorted(merged_labels(rows, tmp_path)) == ["mathematics", "poetry"]
    # Without latent 1 nothing joins 0 and 2 (cosine of 120 degrees: -0.5).
    assert sorted(merged_labels([rows[2], rows[3]], tmp_path)) == ["mathematics", "translation"]
    # A tie goes to the lowest latent.
    assert merged_labels([rows[1], rows[2]], tmp_path) == ["translation"]
    assert merged_labels([], tmp_path) == []
