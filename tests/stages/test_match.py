"""Matching the exclusive latents of two pairs: the second dictionary is a shuffled copy of the first."""

from __future__ import annotations

import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.tables import read_json, read_table, write_table
from crossdiff.settings import Runtime
from crossdiff.stages import scale
from crossdiff.stages.match import ROLES, MatchInputs, run
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
    table = read_table(tmp_path / "matches.parquet", kind="matches")
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
    assert (
        counts["n_exclusive"] == 8 == sum(counts[v] for v in ("twin", "direction_only", "code_only", "new"))
    )
    assert counts["same_latent"] == counts["twin_is_exclusive"] == 7


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
