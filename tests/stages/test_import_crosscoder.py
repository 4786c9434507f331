"""A crosscoder that was trained elsewhere, in the place of training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.data.settings import MaskSettings
from crossdiff.io.crosscoders.write import write_crosscoder
from crossdiff.io.interop import save_dictionary_learning
from crossdiff.io.tables import read_json
from crossdiff.settings import Runtime
from crossdiff.stages import scale, train
from crossdiff.stages.activations import open_activations
from crossdiff.stages.import_crosscoder import ImportInputs, fingerprint, read_for_pair
from tests.published_crosscoders import drawn, write_neelnanda
from tests.scaling_artifacts import LAYER, Artifacts, build

QUIET = Runtime(progress=False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("import"))


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """As wide as the tiny published crosscoders."""
    return build(tmp_path_factory.mktemp("narrow"), d_model=4)


def inputs(path: Path, **changes: object) -> ImportInputs:
    given = {"path": str(path), "fingerprint": fingerprint(str(path)), "layer": LAYER, **changes}
    return ImportInputs(**given)  # type: ignore[arg-type]


def brought(artifacts: Artifacts, asked: ImportInputs, draft: Path) -> dict[str, Path]:
    """Parents of a scale step whose crosscoder was read."""
    given = {role: artifacts.parents[role] for role in ("tokens", "harvest_base", "harvest_tuned")}
    draft.mkdir()
    train.run(asked, given, draft, QUIET)
    return {**given, "train": draft}


@pytest.mark.parametrize("format", ["crossdiff", "dictionary_learning"])
def test_a_crosscoder_that_is_read_gives_the_latent_table_of_its_own_run(
    artifacts: Artifacts, tmp_path: Path, format: str
) -> None:
    if format == "crossdiff":
        shutil.copytree(artifacts.parents["train"] / "crosscoder", tmp_path / "theirs")
    else:
        save_dictionary_learning(artifacts.crosscoder, tmp_path / "theirs", k=4)
    parents = brought(artifacts, inputs(tmp_path / "theirs"), tmp_path / "imported")
    tables = []
    for name, given in (("own", artifacts.parents), ("read", parents)):
        (tmp_path / name).mkdir()
        scale.run(scale.ScaleInputs(layer=LAYER), given, tmp_path / name, QUIET)
        tables.append(pd.read_parquet(tmp_path / name / "latents.parquet"))
    pd.testing.assert_frame_equal(*tables)


def test_a_mean_that_a_format_keeps_in_its_biases_enters_no_beta(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    """SAELens has no mean of the activations; the latent table of the run it came from has."""
    own = artifacts.crosscoder
    source = open_activations(artifacts.parents, LAYER, MaskSettings())
    own.normaliser.mean.copy_(source.statistics()[0])
    own.save(tmp_path / "own" / "crosscoder")
    write_crosscoder(own, tmp_path / "theirs", "saelens", layer=LAYER, facts={})
    parents = brought(artifacts, inputs(tmp_path / "theirs"), tmp_path / "imported")
    tables = []
    for given in ({**parents, "train": tmp_path / "own"}, parents):
        folder = tmp_path / f"table{len(tables)}"
        folder.mkdir()
        scale.run(scale.ScaleInputs(layer=LAYER, dtype="float64"), given, folder, QUIET)
        tables.append(pd.read_parquet(folder / "latents.parquet"))
    own_table, read_table = tables
    assert list(own_table["call"]) == list(read_table["call"])
    columns = ["density", "delta_norm", "beta_activation_base", "beta_reconstruction_tuned"]
    pd.testing.assert_frame_equal(own_table[columns], read_table[columns], rtol=1e-3, atol=1e-4)


def test_what_was_read_is_recorded_and_missing_figures_are_null(
    narrow: Artifacts, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_neelnanda(tmp_path / "theirs", drawn())
    brought(narrow, inputs(folder), tmp_path / "imported")
    crosscoder = Crosscoder.load(tmp_path / "imported" / "crosscoder")
    record = crosscoder.metadata["imported"]
    assert (record["format"], record["scale_origin"]) == ("neelnanda", "estimated")
    assert set(record["files"]) == {"cfg.json", "cc_weights.pt"}
    figures = read_json(tmp_path / "imported" / "training.json")
    assert figures == crosscoder.metadata["training"]
    assert figures["k"] is None
    assert figures["fve_base"] < 0.5
    told = capsys.readouterr().out
    assert "(estimated)" in told
    assert "WARNING: it explains less than 0.5 of the variance" in told
    held_out = narrow.x[torch.isin(narrow.document, _held_out(narrow))]
    kept = held_out.unflatten(0, (-1, 40))[:, 3:].flatten(0, 1)  # BOS and two template tokens are masked
    all_kept = held_out.unflatten(0, (-1, 40))[:, 1:].flatten(0, 1)
    expected = [2 / rows.double().norm(dim=2).mean(0) for rows in (kept, all_kept)]
    assert any(torch.allclose(crosscoder.normaliser.scale.double(), rows, rtol=1e-6) for rows in expected)


def _held_out(artifacts: Artifacts) -> torch.Tensor:
    from crossdiff.data.tokens import TokenSet

    tokens = TokenSet.open(artifacts.parents["tokens"])
    return tokens.document_of(tokens.held_out.nonzero().flatten()).unique()


def test_its_content_decides_and_not_where_it_lies(narrow: Artifacts, tmp_path: Path) -> None:
    here = inputs(write_neelnanda(tmp_path / "a", drawn()))
    there = inputs(write_neelnanda(tmp_path / "b", drawn()))
    assert here.identity() == there.identity()
    write_neelnanda(tmp_path / "b", drawn(1))
    assert inputs(tmp_path / "b").identity() != here.identity()
    with pytest.raises(ValueError, match="has changed since"):
        brought(narrow, there, tmp_path / "imported")


def test_a_crosscoder_of_other_models_is_refused(tmp_path: Path) -> None:
    asked = inputs(write_neelnanda(tmp_path / "a", drawn()))
    with pytest.raises(ValueError, match="2 models of width 4, the pair has 2 of width 8"):
        read_for_pair(asked, d_model=8)
    Crosscoder(DictionarySettings(n_latents=6), n_models=3, d_model=4).save(tmp_path / "three")
    with pytest.raises(ValueError, match="3 models of width 4"):
        read_for_pair(inputs(tmp_path / "three"), d_model=4)
    Crosscoder(DictionarySettings(n_latents=6), n_models=2, d_model=4).save(tmp_path / "unset")
    with pytest.raises(ValueError, match="no inference threshold"):
        read_for_pair(inputs(tmp_path / "unset"), d_model=4)


@pytest.mark.parametrize(
    ("point", "said"),
    [
        ("blocks.14.hook_resid_pre", "layer=13 here"),
        ("blocks.14.hook_resid_post", "layer=14 here"),
        ("blocks.3.hook_mlp_out", "not the residual stream"),
    ],
)
def test_a_crosscoder_of_another_layer_is_refused(tmp_path: Path, point: str, said: str) -> None:
    folder = write_neelnanda(tmp_path, drawn())
    (folder / "cfg.json").write_text(json.dumps({"d_in": 4, "dict_size": 6, "hook_point": point}))
    with pytest.raises(ValueError, match=said):
        read_for_pair(inputs(folder), d_model=4)
    (folder / "cfg.json").write_text(json.dumps({"hook_point": "blocks.4.hook_resid_pre"}))
    assert read_for_pair(inputs(folder), d_model=4).n_latents == 6
