"""Fingerprints say what a model is, wherever it lies."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from crossdiff.models.pair import ModelPair, ModelSettings, custom_pair, fingerprint, resolve


def folder(path: Path, weights: bytes = b"1") -> Path:
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "model.safetensors").write_bytes(weights)
    return path


def model(path: Path | str, **changes: object) -> ModelSettings:
    return ModelSettings(name="m", path=str(path), **changes)  # type: ignore[arg-type]


def test_a_copied_folder_has_the_same_fingerprint_and_changed_weights_another(tmp_path: Path) -> None:
    first = folder(tmp_path / "a")
    copy = shutil.copytree(first, tmp_path / "b")
    other = folder(tmp_path / "c", b"2")
    assert fingerprint(model(first)) == fingerprint(model(copy))
    assert fingerprint(model(first)).startswith("folder:")
    assert fingerprint(model(first)) != fingerprint(model(other))


def test_a_folder_that_changes_under_the_same_path_changes_its_fingerprint(tmp_path: Path) -> None:
    before = fingerprint(model(folder(tmp_path / "a")))
    (tmp_path / "a" / "model.safetensors").write_bytes(b"22")
    assert fingerprint(model(tmp_path / "a")) != before


def test_hub_and_organism_models_are_named_by_id_and_revision(tmp_path: Path) -> None:
    assert fingerprint(model("google/gemma-2-9b")) == "hub:google/gemma-2-9b@main"
    assert fingerprint(model("google/gemma-2-9b", revision="abc")) == "hub:google/gemma-2-9b@abc"
    assert fingerprint(model("organism:pt")) == "organism:pt"
    adapter = folder(tmp_path / "adapter")
    assert fingerprint(model("organism:pt", adapter=str(adapter))).startswith("organism:pt+adapter:folder:")


def test_the_path_is_no_part_of_the_identity_but_the_dtype_is() -> None:
    assert model("a/b").identity() == model("c/d").identity()
    assert model("a/b").identity() != model("a/b", dtype="float32").identity()


def test_organism_models_are_found_in_the_artifact(tmp_path: Path) -> None:
    folder(tmp_path / "models" / "pt")
    assert resolve(model("organism:pt"), tmp_path) == str(tmp_path / "models" / "pt")
    with pytest.raises(ValueError, match=r"organism:dpo is not among the organism's models \['pt'\]"):
        resolve(model("organism:dpo"), tmp_path)
    with pytest.raises(ValueError, match="needs the organism step"):
        resolve(model("organism:pt"), None)


def test_missing_folders_are_refused_and_hub_ids_pass(tmp_path: Path) -> None:
    assert resolve(model("google/gemma-2-9b"), None) == "google/gemma-2-9b"
    with pytest.raises(ValueError, match=r"model folder .*nowhere does not exist; give a folder saved"):
        fingerprint(model(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has no config.json"):
        fingerprint(model(tmp_path / "empty"))


def test_a_pair_takes_plain_strings() -> None:
    pair = ModelPair(name="p", base="a/b", tuned="c/d")  # type: ignore[arg-type]
    assert (pair.base.name, pair.base.path, pair.tuned.name) == ("base", "a/b", "tuned")
    custom = custom_pair("a/b", "c/d", tuned_revision="x", dtype="float32")
    assert (custom.tuned.revision, custom.base.revision, custom.base.dtype) == ("x", None, "float32")
