from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from crossdiff.report.neighbours import neighbours
from crossdiff.report.sources import PairSource, Sources


def with_decoder(pair: PairSource, folder: Path, decoder: torch.Tensor, latents: list[int]) -> PairSource:
    folder.mkdir()
    save_file({"decoder": decoder}, folder / "weights.safetensors")
    listed = [{"latent": latent, "role": "exclusive_tuned"} for latent in latents]
    return replace(pair, crosscoder=folder, selection={"latents": listed})


def test_the_nearest_direction_is_the_planted_one(sources: Sources, tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    decoder = torch.randn(600, 2, 16, generator=generator)
    decoder[77, 1] = 3 * decoder[5, 1] + 0.01
    other = torch.randn(600, 2, 16, generator=generator)
    other[9, 1] = 2 * decoder[5, 1]
    pairs = {
        "pt_it": with_decoder(sources.pairs["pt_it"], tmp_path / "one", decoder, [5]),
        "pt_simpo": with_decoder(sources.pairs["pt_simpo"], tmp_path / "two", other, [3]),
    }
    near = neighbours(pairs)["pt_it"][5]
    assert near[0]["latent"] == 77
    assert near[0]["cosine"] > 0.99
    assert [row["pair"] for row in near] == ["pt_it"] * 5 + ["pt_simpo"]
    assert near[-1] == {"pair": "pt_simpo", "latent": 9, "cosine": 1.0}


def test_without_crosscoders_there_are_no_neighbours(sources: Sources) -> None:
    found = neighbours(sources.pairs)
    assert all(near == [] for pair in found.values() for near in pair.values())


def test_pairs_of_another_width_are_not_compared(sources: Sources, tmp_path: Path) -> None:
    pairs = {
        "pt_it": with_decoder(sources.pairs["pt_it"], tmp_path / "one", torch.randn(600, 2, 16), [5]),
        "pt_simpo": with_decoder(sources.pairs["pt_simpo"], tmp_path / "two", torch.randn(600, 2, 8), [5]),
    }
    assert {row["pair"] for row in neighbours(pairs)["pt_it"][5]} == {"pt_it"}
