"""Matching the exclusive latents of two pairs: the second dictionary is a shuffled copy of the first."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.data.tokens import TokenSet
from crossdiff.io.tables import read_json, read_table, write_table
from crossdiff.settings import Runtime
from crossdiff.stages import scale
from crossdiff.stages.match import ROLES, VERDICTS, MatchInputs, matched, run
from crossdiff.stages.match_pass import shared_rows
from tests.scaling_artifacts import LAYER, Artifacts, build

QUIET = Runtime(progress=False)
ORDER = torch.randperm(32, generator=torch.Generator().manual_seed(5))
NEW = 7


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """Scaled; the table calls latents 4 to 11 exclusive to the tuned model, whatever their ratios say."""
    found = build(tmp_path_factory.mktemp("match"))
    _scale(found.parents)
    _call(found.folder / "scale", range(4, 12))
    return found


def _scale(parents: dict[str, Path]) -> None:
    parents["scale"].mkdir(parents=True, exist_ok=True)
    scale.run(scale.ScaleInputs(layer=LAYER), parents, parents["scale"], QUIET)


def _call(folder: Path, latents: range | list[int]) -> None:
    table = read_table(folder / "latents.parquet", kind="latents")
    owner = ["tuned" if j in latents else None for j in table["latent"]]
    table["exclusive_to"] = pd.Series(owner, dtype=object)
    write_table(table, folder / "latents.parquet", version=1, kind="latents")


def shuffled(artifacts: Artifacts, folder: Path) -> dict[str, Path]:
    """The same dictionary in another order, but for latent `NEW`, which is turned into another direction."""
    crosscoder = Crosscoder.load(artifacts.parents["train"] / "crosscoder")
    with torch.no_grad():
        crosscoder.decoder[NEW] = -crosscoder.decoder[NEW]
        crosscoder.encoder[NEW] = -crosscoder.encoder[NEW]
        for name in ("encoder", "decoder", "encoder_bias"):
            weights = getattr(crosscoder, name)
            weights.copy_(weights[ORDER].clone())
    crosscoder.save(folder / "train" / "crosscoder")
    parents = {**artifacts.parents, "train": folder / "train", "scale": folder / "scale"}
    _scale(parents)
    _call(folder / "scale", ORDER.argsort()[4:12].tolist())
    return parents


def test_a_shuffled_dictionary_is_matched_back_and_the_changed_latent_is_new(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    parents = {"tokens": artifacts.parents["tokens"]}
    for name, own in (("first", artifacts.parents), ("second", shuffled(artifacts, tmp_path / "second"))):
        parents |= {f"{role}_{name}": own[role] for role in ROLES}
    inputs = MatchInputs(pairs=("first", "second"), layer=LAYER, n_tokens=1000)
    found = run(inputs, parents, tmp_path, QUIET)
    table = read_table(tmp_path / "matches.parquet", kind="matches", version=2)
    first = table[table["pair"] == "first"].set_index("latent")
    same = [j for j in range(4, 12) if j != NEW]
    assert [int(ORDER[first.loc[j, "direction_latent"]]) for j in same] == same
    assert [int(ORDER[first.loc[j, "code_latent"]]) for j in same] == same
    assert set(first.loc[same, "verdict"]) == {"twin"}
    assert first.loc[same, "cosine"].min() == pytest.approx(1, abs=1e-5)
    assert first.loc[NEW, "verdict"] != "twin"
    assert found["first_twin"] == found["second_twin"] == 7
    record = read_json(tmp_path / "matches.json")
    assert record["n_tokens"] <= 1000
    counts = record["pairs"]["first"]
    assert counts["n_exclusive"] == 8 == sum(counts[v] for v in VERDICTS)
    assert counts["same_latent"] == counts["twin_is_exclusive"] == 7


def test_printed_cosines_are_those_of_the_weights_where_direction_and_code_disagree(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """Two latents of the second dictionary swap their tuned directions but keep their codes."""
    parents = {"tokens": artifacts.parents["tokens"]}
    second = shuffled(artifacts, tmp_path / "second")
    crosscoder = Crosscoder.load(second["train"] / "crosscoder")
    swapped = ORDER.argsort()[[4, 5]]
    with torch.no_grad():
        crosscoder.decoder[swapped, -1] = crosscoder.decoder[swapped.flip(0), -1].clone()
    crosscoder.save(second["train"] / "crosscoder")
    for name, own in (("first", artifacts.parents), ("second", second)):
        parents |= {f"{role}_{name}": own[role] for role in ROLES}
    counts = run(MatchInputs(pairs=("first", "second"), layer=LAYER), parents, tmp_path, QUIET)
    table = read_table(tmp_path / "matches.parquet", kind="matches", version=2)
    first = table[table["pair"] == "first"].set_index("latent")
    assert set(first.loc[[4, 5], "verdict"]) == {"split"}
    assert set(first.loc[[4, 5], "twin_latent"]) == {-1}
    directions = {
        "reference": Crosscoder.load(artifacts.parents["train"] / "crosscoder").decoder[:, -1].detach(),
        "treatment": crosscoder.decoder[:, -1].detach(),
    }
    unit = {name: torch.nn.functional.normalize(rows, dim=1) for name, rows in directions.items()}
    pairs = read_json(tmp_path / "matches.json")["matched"]["pairs"]
    assert len(pairs) == counts["first_twin"] == counts["second_twin"] == 5
    for pair in pairs:
        cosine = unit["reference"][pair["reference"]] @ unit["treatment"][pair["treatment"]]
        assert pair["cosine"] == pytest.approx(float(cosine), abs=1e-4)


def test_a_twin_shared_by_two_latents_is_two_latents_and_one_pair_each() -> None:
    columns = {"verdict": "twin", "twin_cosine": 0.9, "twin_correlation": 0.8, "twin_exclusive": True}
    reference = pd.DataFrame({"latent": [3], "twin_latent": [1], **columns})
    treatment = pd.DataFrame({"latent": [1, 2], "twin_latent": [3, 3], **columns})
    pairs = matched(reference, treatment)["pairs"]
    assert [(pair["reference"], pair["treatment"]) for pair in pairs] == [(3, 1), (3, 2)]


def test_a_pair_without_exclusive_latents_ends_well(artifacts: Artifacts, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    shutil.copytree(artifacts.parents["scale"], empty)
    _call(empty, [])
    parents = {"tokens": artifacts.parents["tokens"]}
    for name, scaled in (("first", artifacts.parents["scale"]), ("none", empty)):
        parents |= {f"{role}_{name}": artifacts.parents[role] for role in ROLES} | {f"scale_{name}": scaled}
    found = run(MatchInputs(pairs=("first", "none"), layer=LAYER), parents, tmp_path, QUIET)
    assert found["none_twin"] == found["none_new"] == 0
    assert found["first_twin"] == 8  # found among all latents of the other, exclusive or not
    assert read_json(tmp_path / "matches.json")["pairs"]["first"]["twin_is_exclusive"] == 0


def corpus(n_documents: int, *, length: int) -> Any:
    """Documents of equal length from two sources that take turns, all kept."""
    n_tokens = n_documents * length
    token_set = TokenSet(
        ids=torch.zeros(n_tokens, dtype=torch.int32),
        offsets=torch.arange(n_documents + 1) * length,
        kind=torch.zeros(n_tokens, dtype=torch.uint8),
        document_ids=[str(number) for number in range(n_documents)],
        sources=["web", "chat"] * (n_documents // 2),
        token_hash="",
    )
    return SimpleNamespace(kept=torch.ones(n_tokens, dtype=torch.bool), token_set=token_set)


@pytest.mark.parametrize("n_tokens", [50_000, 25_000, 10_000, 5_000])
def test_a_part_of_an_alternating_corpus_holds_whole_documents_of_both_sources(n_tokens: int) -> None:
    """Half, a quarter, a tenth, a twentieth of 1,000 documents: every n-th of them would be web only."""
    whole = corpus(1000, length=100)
    rows = shared_rows(whole, whole, n_tokens=n_tokens)
    documents, lengths = whole.token_set.document_of(rows).unique(return_counts=True)
    assert len(rows) == n_tokens
    assert set(lengths.tolist()) == {100}
    sources = Counter(whole.token_set.sources[number] for number in documents.tolist())
    assert min(sources.values()) > 0.3 * len(documents)


def test_rows_are_those_that_both_pairs_keep_in_corpus_order() -> None:
    first, second = corpus(4, length=5), corpus(4, length=5)
    first.kept[:5], second.kept[5:7] = False, False
    assert shared_rows(first, second, n_tokens=100).tolist() == list(range(7, 20))


def test_one_document_is_taken_even_if_it_is_too_long() -> None:
    whole = corpus(4, length=50)
    assert len(shared_rows(whole, whole, n_tokens=10)) == 50
    whole.kept[:] = False
    assert len(shared_rows(whole, whole, n_tokens=10)) == 0


@pytest.mark.slow
def test_two_devices_match_what_one_matches(artifacts: Artifacts, tmp_path: Path) -> None:
    parents = {"tokens": artifacts.parents["tokens"]}
    for name, own in (("first", artifacts.parents), ("second", shuffled(artifacts, tmp_path / "second"))):
        parents |= {f"{role}_{name}": own[role] for role in ROLES}
    inputs = MatchInputs(pairs=("first", "second"), layer=LAYER)
    tables = []
    for n_devices in (1, 2):
        folder = tmp_path / f"devices_{n_devices}"
        folder.mkdir()
        run(inputs, parents, folder, Runtime(progress=False, n_devices=n_devices))
        tables.append(read_table(folder / "matches.parquet", kind="matches", version=2))
    pd.testing.assert_frame_equal(*tables, rtol=0, atol=1e-10)
