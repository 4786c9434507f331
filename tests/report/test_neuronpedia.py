"""Exclusive latents as Neuronpedia's importer reads them."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff.report.neuronpedia import Place, write_neuronpedia
from crossdiff.report.sources import PairSource, read_annotations, read_pair
from tests import report_artifacts

NEEDED = {
    "features": {"modelId", "layer", "index", "maxActApprox", "vector", "hookName", "pos_str", "neg_values"},
    "activations": {"id", "tokens", "values", "maxValue", "maxValueTokenIndex", "minValue", "creatorId"},
    "explanations": {"id", "modelId", "layer", "index", "description", "authorId"},
}
"""Columns without a default in the importer's database, and those that a dashboard shows."""
PLACE = Place("gemma-2-2b-it", 13, "pt_it")


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PairSource:
    store = report_artifacts.build(tmp_path_factory.mktemp("artifacts"), hostile=True)
    return read_pair("pt_it", store.parents, read_annotations(store.parents))


def lines(folder: Path, name: str) -> list[dict]:
    files = sorted((folder / name).glob("batch-*.jsonl.gz"))
    return [json.loads(line) for file in files for line in gzip.decompress(file.read_bytes()).splitlines()]


def written(pair: PairSource, folder: Path) -> tuple[Path, set[int]]:
    latents = {int(e["latent"]) for e in pair.selection["latents"] if e["role"].startswith("exclusive")}
    vectors = {latent: [float(latent), 2.0] for latent in latents}
    target, n_latents = write_neuronpedia(pair, vectors, PLACE, folder)
    assert n_latents == len(latents)
    return target, latents


def test_every_exclusive_latent_has_its_feature_and_its_documents(pair: PairSource, tmp_path: Path) -> None:
    folder, latents = written(pair, tmp_path)
    assert folder == tmp_path / "gemma-2-2b-it" / "13-crossdiff-pt-it"
    found = {name: lines(folder, name) for name in NEEDED}
    for name, needed in NEEDED.items():
        assert all(needed <= set(row) for row in found[name])
        assert {(row["modelId"], row["layer"]) for row in found[name]} == {("gemma-2-2b-it", folder.name)}
    assert {int(row["index"]) for row in found["features"]} == latents
    assert found["features"][0]["vector"] == [float(found["features"][0]["index"]), 2.0]
    assert found["features"][0]["hookName"] == "blocks.13.hook_resid_post"
    for row in found["activations"]:
        assert len(row["tokens"]) == len(row["values"])
        assert row["values"][row["maxValueTokenIndex"]] == row["maxValue"] == max(row["values"])
    ids = [row["id"] for row in found["activations"]]
    assert len(set(ids)) == len(ids)
    assert {int(row["index"]) for row in found["activations"]} <= latents
    (source,) = [json.loads(line) for line in (folder / "source.jsonl").read_text().splitlines()]
    assert source["id"] == folder.name


def test_the_same_latents_are_the_same_bytes_and_postgres_takes_the_texts(
    pair: PairSource, tmp_path: Path
) -> None:
    assert pair.top is not None
    top = pair.top.copy()
    top["tokens"] = [["a\0b", "\ud800", "\\u0000", *tokens[3:]] for tokens in top["tokens"]]
    odd = replace(pair, top=top)
    (first, _), (second, _) = written(odd, tmp_path / "a"), written(odd, tmp_path / "b")
    for file in (path for path in first.rglob("*") if path.is_file()):
        assert file.read_bytes() == (second / file.relative_to(first)).read_bytes()
    assert any(row["tokens"][:3] == ["a b", "?", "\\u0000"] for row in lines(first, "activations"))


def test_without_documents_or_labels_features_stand_alone(pair: PairSource, tmp_path: Path) -> None:
    folder, latents = written(replace(pair, top=None, examples=None, annotations=[]), tmp_path)
    assert len(lines(folder, "features")) == len(latents)
    assert lines(folder, "activations") == lines(folder, "explanations") == []
