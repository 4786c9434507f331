from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file

from crossdiff.report import explorer
from crossdiff.report.explorer import neighbours
from crossdiff.report.sources import PairSource, Sources


def unpacked(chunk: str) -> dict:
    return json.loads(zlib.decompress(base64.b64decode(chunk)))


def test_every_selected_latent_has_a_row_and_a_chunk(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    index, chunks = explorer.pack(pair, n_examples=3)
    assert len(index) == len(chunks) == len(pair.selected()) == 16
    assert {row["role"] for row in index} == {"exclusive_tuned", "exclusive_base", "control_shared"}
    detail = unpacked(chunks["0"])
    assert [len(group["documents"]) for group in detail["groups"]] == [2, 1]
    assert detail["votes"] == {"harmful_request_refusal": 0.67, "other": 0.33}
    assert detail["logits"]["tuned"]["top"] == [["the", 0.5], [" river", 0.5]]
    assert detail["histogram"]["counts"] == [900, 0, 3]


def test_the_intruder_score_neither_sorts_nor_filters(sources: Sources) -> None:
    assert explorer.score({"detection": 0.5, "fuzz": 0.75, "intruder": 1.0}) == 0.625
    assert explorer.score({"detection": 0.5, "fuzz": None, "intruder": 1.0}) == 0.5
    assert explorer.score({"intruder": 1.0}) is None
    index, _ = explorer.pack(sources.pairs["pt_it"], n_examples=1)
    row = next(row for row in index if row["latent"] == 4)
    assert (row["score"], row["scores"]["intruder"]) == (0.9, 1.0)


def test_a_swapped_control_does_not_hide_the_latent_it_borrowed(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    swapped = {**pair.annotations[0], "role": "control_swapped", "label": "wrong"}
    pair.annotations.append(swapped)
    index, _ = explorer.pack(pair, n_examples=1)
    pair.annotations.remove(swapped)
    assert next(row for row in index if row["latent"] == 0)["label"] != "wrong"


def test_the_documents_of_every_latent_fall_in_peak_code_from_the_corpus_highest(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    assert pair.top is not None
    highest = pair.top.groupby("latent")["peak_code"].max()
    _, chunks = explorer.pack(pair, n_examples=4)
    for latent, chunk in chunks.items():
        groups = unpacked(chunk)["groups"]
        codes = [[document["code"] for document in group["documents"]] for group in groups]
        assert codes[0][0] == highest[int(latent)]
        assert all(part == sorted(part, reverse=True) for part in codes)


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
