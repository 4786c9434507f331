"""Copying imported activations: the bytes of a harvest, and NaN rows by number."""

from pathlib import Path

import numpy as np
import pytest
import torch

from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.imported.layer import copy_layer, open_activations_of
from crossdiff.data.imported.rows import read_rows, write_rows
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import ImportedSource
from crossdiff.data.tokens import TokenSet

N_ROWS, D_MODEL = 1100, 6


def token_set(folder: Path) -> TokenSet:
    return write_rows(read_rows(ImportedSource(activations={"m": "x"}), N_ROWS, None), folder, identity="")


def rows(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(N_ROWS, D_MODEL)).astype("float32")


def test_the_shards_are_those_of_a_harvest_of_the_same_rows(tmp_path: Path) -> None:
    tokens, x = token_set(tmp_path / "tokens"), rows()
    np.save(tmp_path / "x.npy", x)
    found = copy_layer("m", str(tmp_path / "x.npy"), tokens, tmp_path / "a", layer=2, progress=False)
    write_harvest(tmp_path / "b", tokens, {2: torch.from_numpy(x)}, shard_tokens=131_072)
    assert (found["n_tokens"], found["d_model"], found["storage"]) == (N_ROWS, D_MODEL, "float32")
    name = "layer_2/shard_00000.safetensors"
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_batches_say_that_documents_and_template_are_unknown(tmp_path: Path) -> None:
    token_set(tmp_path / "tokens")
    np.save(tmp_path / "x.npy", rows().astype("float64"))
    tokens = TokenSet.open(tmp_path / "tokens")
    found = copy_layer("m", str(tmp_path / "x.npy"), tokens, tmp_path / "a", layer=0, progress=False)
    assert found["notices"] == [f"{tmp_path}/x.npy: float64 is stored as float32"]
    paired = PairedActivations.open(tmp_path / "tokens", [tmp_path / "a"] * 2, layer=0)
    batch = next(iter(paired.batches(batch_size=100)))
    assert (batch.document, batch.template) == (None, None)
    assert batch.to("cpu").document is None
    assert torch.equal(batch.x[:, 0], torch.from_numpy(rows()[:100]))
    assert 0 < len(paired.rows("validation")) < len(paired.rows("train"))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(tmp_path: Path, value: float) -> None:
    tokens, x = token_set(tmp_path / "tokens"), rows()
    x[777, 2] = value
    np.save(tmp_path / "x.npy", x)
    with pytest.raises(ValueError, match=r"NaN or infinite values in 1 of rows 0 to 1,099, first in row 777"):
        copy_layer("m", str(tmp_path / "x.npy"), tokens, tmp_path / "a", layer=2, progress=False)


def test_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    for array, said in (
        (rows()[None], r"shape \[1, 1100, 6\]; it needs rows"),
        (rows()[0], "it needs rows"),
        (rows()[:0], "it needs rows"),
        (rows().astype("int64"), "has int64; activations are float32"),
    ):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(ValueError, match=said):
            open_activations_of("m", str(tmp_path / "x.npy"))
