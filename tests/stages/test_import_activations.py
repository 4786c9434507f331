"""Activations of another tool in the place of tokens and harvest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossdiff.data.settings import ImportedSource
from crossdiff.data.tokens import TokenSet
from crossdiff.io.tables import read_json
from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Runtime
from crossdiff.stages import documents, harvest, scale, tokens
from crossdiff.stages.import_activations import (
    ImportHarvestInputs,
    ImportTokensInputs,
    array_content,
    rows_content,
    texts_content,
    tokenizer_fingerprint,
)
from tests.model_folders import make_tokenizer
from tests.scaling_artifacts import LAYER, Artifacts, build

QUIET = Runtime(progress=False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("imported"))


def tokens_inputs(rows: ImportedSource, n_rows: int, tokenizer: Path | None) -> ImportTokensInputs:
    model = None if tokenizer is None else ModelSettings(name="m", path=str(tokenizer))
    return ImportTokensInputs(
        rows=rows,
        n_rows=n_rows,
        content=rows_content(rows),
        tokenizer=model,
        tokenizer_fingerprint=None if model is None else tokenizer_fingerprint(model),
    )


def harvest_inputs(path: Path) -> ImportHarvestInputs:
    model = ModelSettings(name=path.stem, path="no/model")
    content = array_content(str(path))
    return ImportHarvestInputs(
        model=model, fingerprint="hub:no/model@main", path=str(path), content=content, layer=LAYER
    )


def brought(artifacts: Artifacts, folder: Path, *, known: bool) -> dict[str, Path]:
    """Parents of a scale step, of which tokens and harvests were read from .npy files."""
    folder.mkdir()
    given, source = TokenSet.open(artifacts.parents["tokens"]), ImportedSource(activations={"base": "x"})
    if known:
        make_tokenizer().save_pretrained(folder / "tokenizer")
        for name, values in (("ids", given.ids), ("offsets", given.offsets), ("kinds", given.kind)):
            np.save(folder / f"{name}.npy", values.numpy())
        paths = {name: str(folder / f"{name}.npy") for name in ("ids", "offsets", "kinds")}
        source = source.model_copy(update=paths)
    parents = {name: folder / name for name in ("tokens", "harvest_base", "harvest_tuned")}
    parents["tokens"].mkdir()
    about_rows = tokens_inputs(source, given.n_tokens, folder / "tokenizer" if known else None)
    tokens.run(about_rows, {}, parents["tokens"], QUIET)
    for model, name in enumerate(("base", "tuned")):
        np.save(folder / f"{name}.npy", artifacts.x[:, model].numpy())
        role = f"harvest_{name}"
        harvest.run(
            harvest_inputs(folder / f"{name}.npy"), {"tokens": parents["tokens"]}, parents[role], QUIET
        )
    artifacts.crosscoder.save(folder / "train" / "crosscoder")
    return {**parents, "train": folder / "train"}


def scaled(parents: dict[str, Path], draft: Path) -> tuple[pd.DataFrame, dict]:
    draft.mkdir()
    scale.run(scale.ScaleInputs(layer=LAYER), parents, draft, QUIET)
    return pd.read_parquet(draft / "latents.parquet"), read_json(draft / "diagnostics.json")


def test_the_same_rows_from_files_give_the_same_latent_table(artifacts: Artifacts, tmp_path: Path) -> None:
    own, _ = scaled(artifacts.parents, tmp_path / "own")
    read, diagnostics = scaled(brought(artifacts, tmp_path / "files", known=True), tmp_path / "read")
    pd.testing.assert_frame_equal(own, read, check_exact=True)
    assert set(diagnostics["template"]) == {"tuned", "base"}


def test_unknown_documents_leave_their_columns_empty(artifacts: Artifacts, tmp_path: Path) -> None:
    own, _ = scaled(artifacts.parents, tmp_path / "own")
    parents = brought(artifacts, tmp_path / "files", known=False)
    read, diagnostics = scaled(parents, tmp_path / "read")
    assert np.isnan(read["n_documents"].to_numpy(float)).all()
    bounds = [str(name) for name in read.columns if str(name).endswith(("_low", "_high"))]
    assert np.isnan(read[bounds].to_numpy(float)).all()
    assert "exclusive" not in set(read["call"])
    assert (diagnostics["template"], diagnostics["split_half"]) == ({}, None)
    assert np.all(read["n_active"].to_numpy() >= own["n_active"].to_numpy())  # BOS is unknown, so it counts
    draft = tmp_path / "documents"
    draft.mkdir()
    asked = documents.DocumentsInputs(pair="pair", layer=LAYER)
    found = documents.run(asked, {**parents, "scale": tmp_path / "read"}, draft, QUIET)
    assert found["n_examples"] == 0
    assert len(pd.read_parquet(draft / "background.parquet")) == 0


def test_the_key_is_the_content_and_a_changed_file_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(seed).normal(size=(9, 4)).astype("float32"))
    a, b, c = (harvest_inputs(tmp_path / f"{name}.npy").identity() for name in "abc")
    assert a == b != c
    asked = harvest_inputs(tmp_path / "a.npy")
    (tmp_path / "a.npy").write_bytes((tmp_path / "c.npy").read_bytes())
    with pytest.raises(ValueError, match="has changed since this step was planned"):
        harvest.run(asked, artifacts.parents, tmp_path / "draft", QUIET)
    rows = ImportedSource(activations={"base": "x"}, offsets=str(tmp_path / "c.npy"))
    planned = tokens_inputs(rows, 9, None)
    (tmp_path / "c.npy").write_bytes((tmp_path / "b.npy").read_bytes())
    with pytest.raises(ValueError, match="have changed since"):
        tokens.run(planned, {}, tmp_path / "draft", QUIET)


def test_texts_are_known_by_their_content_and_by_how_they_are_read(tmp_path: Path) -> None:
    """The same bytes are one document per line as .txt, and JSON as .jsonl."""
    for name in ("a.jsonl", "moved.jsonl", "a.txt", "a.md"):
        (tmp_path / name).write_text('{"text": "one"}\n')
    first, moved, lines = (
        texts_content(str(tmp_path / name)) for name in ("a.jsonl", "moved.jsonl", "a.txt")
    )
    assert first == moved != lines
    with pytest.raises(ValueError, match="is '.md'; crossdiff reads"):
        texts_content(str(tmp_path / "a.md"))
    with pytest.raises(ValueError, match="source.texts=.*none.txt does not exist"):
        texts_content(str(tmp_path / "none.txt"))


def test_a_tokenizer_is_known_by_its_files_without_the_weights(tmp_path: Path) -> None:
    make_tokenizer().save_pretrained(tmp_path / "m")
    model = ModelSettings(name="m", path=str(tmp_path / "m"))
    before = tokenizer_fingerprint(model)
    (tmp_path / "m" / "model.safetensors").write_bytes(b"weights")
    assert tokenizer_fingerprint(model) == before
    (tmp_path / "m" / "chat_template.jinja").write_text("another")
    assert tokenizer_fingerprint(model) != before
    assert tokenizer_fingerprint(model.model_copy(update={"path": "a/b"})) == "a/b@main"
