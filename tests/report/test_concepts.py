from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from crossdiff.report.concepts import block, concepts
from crossdiff.report.explorer import pack
from crossdiff.report.sources import PairSource, Sources

LISTED = {"a": [0, 1], "b": [2, 3], "c": [4]}
"""Exclusive latents per crosscoder; 0, 2 and 4 have one direction, 1 and 3 have others."""


@pytest.fixture
def crosscoders(sources: Sources, tmp_path: Path) -> tuple[PairSource, ...]:
    decoder = torch.zeros(600, 2, 8)
    decoder[[0, 2, 4], 1, 0] = torch.tensor([1.0, 2.0, 3.0])
    decoder[1, 1, 1] = decoder[3, 1, 2] = 1.0
    decoder[5:, :, 7] = 1.0
    save_file({"decoder": decoder}, tmp_path / "weights.safetensors")
    histogram = {"edges": [1.0, 2.0], "counts": [1]}
    found = []
    for name, latents in LISTED.items():
        listed: list[dict[str, Any]] = [
            {"latent": n, "role": "exclusive_tuned", "histogram": {**histogram, "counts": [n + 1]}}
            for n in latents
        ]
        table = sources.pairs["pt_it"].latents.assign(norm_tuned=1.0)
        pair = replace(sources.pairs["pt_it"], name=name, latents=table, selection={"latents": listed})
        found.append(replace(pair, crosscoder=tmp_path, annotations=[], top=None, examples=None))
    return tuple(found)


def test_planted_twins_are_one_recurring_concept_led_by_the_most_energy(
    crosscoders: tuple[PairSource, ...],
) -> None:
    known = concepts(crosscoders)
    assert {key for key, one in known.items() if one["recurs"]} == {("a", 0), ("b", 2), ("c", 4)}
    assert [key for key, one in known.items() if one["lead"]] == [("c", 4)]
    assert known["a", 0]["found"] == "3 of 3"
    assert known["a", 1]["found"] == "1 of 3"
    assert {(twin["pair"], twin["latent"]) for twin in known["a", 0]["twins"]} == {("b", 2), ("c", 4)}


def test_the_list_and_an_opened_latent_hold_them(crosscoders: tuple[PairSource, ...]) -> None:
    index, _ = pack(crosscoders[2], n_examples=2, recurring=concepts(crosscoders))
    assert (index[0]["found"], index[0]["lead"]) == ("3 of 3", True)
    single, _ = pack(crosscoders[2], n_examples=2)
    assert "found" not in single[0]


def test_the_pair_says_how_many_recur_and_its_mcc(crosscoders: tuple[PairSource, ...]) -> None:
    found = block(crosscoders, concepts(crosscoders))
    assert found is not None
    assert [row.cells[3].text for row in found["table"].rows] == ["1", "1", "1"]
    assert "1 recurring concepts" not in found["text"]
    assert "PW-MCC of the tuned-exclusive latents" in found["text"]


def test_one_crosscoder_has_no_concepts(crosscoders: tuple[PairSource, ...]) -> None:
    assert concepts(crosscoders[:1]) == {}
    assert block(crosscoders[:1], {}) is None
