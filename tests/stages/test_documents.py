"""The documents stage on small finished artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config

from crossdiff.core.drift import drifted
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.data.examples import document_hashes, for_scoring
from crossdiff.data.tokens import TokenSet
from crossdiff.io.artifacts import write_manifest
from crossdiff.io.tables import read_json, read_table
from crossdiff.settings import Runtime
from crossdiff.stages import documents, documents_pass, scale
from tests.scaling_artifacts import LAYER, Artifacts, build

QUIET = Runtime(progress=False)
GEMMA = Gemma2Config(
    vocab_size=50, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, head_dim=8, tie_word_embeddings=True,
)  # fmt: skip
SETTINGS = documents.DocumentsSettings(
    n_examples=6, n_score_examples=4, window=16, n_background=12, n_controls=3
)
GENEROUS = SelectionSettings(nu_error=5, nu_reconstruction=5, min_tokens=5, min_documents=3)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    built = build(tmp_path_factory.mktemp("documents"))
    scaled(built, GENEROUS, built.parents["scale"])
    return built


@pytest.fixture(autouse=True)
def words(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("token_strings", "text_strings"):
        monkeypatch.setattr(TokenSet, name, lambda self, ids: [f"w{int(i)}" for i in ids])


def scaled(built: Artifacts, selection: SelectionSettings, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    scale.run(scale.ScaleInputs(layer=LAYER, selection=selection), built.parents, folder, QUIET)


def inputs(**changes: object) -> documents.DocumentsInputs:
    return documents.DocumentsInputs(**{"pair": "toy", "layer": LAYER, "documents": SETTINGS, **changes})


def test_examples_are_windows_of_the_corpus_with_the_codes_of_the_crosscoder(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    documents.run(inputs(), artifacts.parents, tmp_path, QUIET)
    examples = read_table(tmp_path / "examples.parquet", kind="examples")
    code = artifacts.crosscoder.encode(artifacts.x).detach()
    code[torch.arange(len(code)) % 40 == 0] = 0  # BOS is masked
    assert len(examples) > 20
    for row in examples.itertuples():
        first = row.document * 40 + row.start
        expected = code[first : first + len(row.codes), row.latent]
        assert torch.allclose(torch.tensor(row.codes), expected, atol=1e-5)
        assert row.codes[row.peak] == pytest.approx(row.peak_code, abs=1e-5)
        assert row.peak_code == pytest.approx(
            float(code[row.document * 40 :][:40, row.latent].max()), abs=1e-5
        )
        assert len(row.tokens) == len(row.codes) == len(row.kinds) == 16


@pytest.mark.parametrize("n_score_examples", [4, 0])
def test_top_documents_are_the_highest_of_the_whole_corpus_in_order(
    artifacts: Artifacts, tmp_path: Path, n_score_examples: int
) -> None:
    settings = SETTINGS.model_copy(update={"n_score_examples": n_score_examples})
    documents.run(inputs(documents=settings), artifacts.parents, tmp_path, QUIET)
    tops = read_table(tmp_path / "top_documents.parquet", kind="top_documents")
    scoring = for_scoring(document_hashes([f"doc{n}" for n in range(60)], salt="examples"), 1 / 3)
    code = artifacts.crosscoder.encode(artifacts.x).detach().view(60, 40, -1)[:, 1:]
    assert tops["latent"].nunique() > 3
    for latent, rows in tops.groupby("latent"):
        peaks = code[:, :, latent].amax(1)
        expected = peaks.sort(descending=True, stable=True).indices[: min(10, int((peaks > 0).sum()))]
        assert rows["document"].tolist() == expected.tolist()
        assert rows["rank"].tolist() == list(range(len(rows)))
        assert (rows["subset"] == "score").tolist() == scoring[expected].tolist()
    assert set(tops["subset"]) == {"explain", "score"}


def test_the_highest_examples_are_the_highest_peaks_of_their_subset(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    documents.run(inputs(), artifacts.parents, tmp_path, QUIET)
    examples = read_table(tmp_path / "examples.parquet", kind="examples")
    names = [f"doc{n}" for n in range(60)]
    scoring = for_scoring(document_hashes(names, salt="examples"), SETTINGS.score_share)
    code = artifacts.crosscoder.encode(artifacts.x).detach().view(60, 40, -1)[:, 1:]
    for (latent, subset), rows in examples[examples["source"] == "top"].groupby(["latent", "subset"]):
        mine = scoring if subset == "score" else ~scoring
        peaks = torch.where(mine, code[:, :, latent].amax(1), 0)
        expected = peaks.sort(descending=True).indices[: len(rows)].tolist()
        assert list(rows["document"]) == expected
        assert list(rows["rank"]) == list(range(len(rows)))


def test_a_document_serves_a_latent_once_and_one_subset_only(artifacts: Artifacts, tmp_path: Path) -> None:
    documents.run(inputs(), artifacts.parents, tmp_path, QUIET)
    examples = read_table(tmp_path / "examples.parquet", kind="examples")
    assert not examples.duplicated(["latent", "document"]).any()
    subsets = examples.groupby("document")["subset"].nunique()
    assert (subsets == 1).all()


def test_examples_do_not_depend_on_the_batch_size(artifacts: Artifacts, tmp_path: Path) -> None:
    tables = []
    for batch_size in (37, 5000):
        folder = tmp_path / str(batch_size)
        folder.mkdir()
        documents.run(inputs(batch_size=batch_size), artifacts.parents, folder, QUIET)
        tables.append(read_table(folder / "examples.parquet", kind="examples"))
    same = ["latent", "subset", "source", "quantile", "rank", "document_id", "start", "peak"]
    assert tables[0][same].equals(tables[1][same])


@pytest.mark.slow
def test_two_devices_write_the_bytes_of_one(artifacts: Artifacts, tmp_path: Path) -> None:
    """Batches of 77 rows end inside documents of 39 kept ones, so that some lie in both parts."""
    found = []
    for n_devices in (1, 2):
        folder = tmp_path / str(n_devices)
        folder.mkdir()
        runtime = Runtime(progress=False, n_devices=n_devices)
        documents.run(inputs(batch_size=77), artifacts.parents, folder, runtime)
        found.append({path.name: path.read_bytes() for path in folder.iterdir()})
    assert len(found[0]) == 4
    assert found[0] == found[1]


def test_the_gpus_are_left_to_the_processes_of_the_pass(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    happened, open_both = [], documents.open_both

    def opening(asked, parents, device: str):
        happened.append(device)
        return open_both(asked, parents, "cpu")

    def passing(opened, both, asked, runtime):
        happened.append("pass")
        return documents_pass.pass_over_part(*opened, asked)

    monkeypatch.setattr(documents, "open_both", opening)
    monkeypatch.setattr(documents_pass, "pass_over_corpus", passing)
    runtime = Runtime(progress=False, device="cuda", n_devices=2)
    documents.run(inputs(), artifacts.parents, tmp_path, runtime)
    assert happened == ["cpu", "pass", "cuda"]


def test_an_empty_selection_ends_well_and_says_why(artifacts: Artifacts, tmp_path: Path) -> None:
    scaled(artifacts, SelectionSettings(min_tokens=10**6), tmp_path / "scale")
    found = documents.run(inputs(), {**artifacts.parents, "scale": tmp_path / "scale"}, tmp_path, QUIET)
    record = read_json(tmp_path / "selection.json")
    assert found["n_examples"] == 0
    assert record["latents"] == []
    assert "No latent of toy is exclusive" in record["sentence"]
    assert "min_tokens" in record["sentence"]
    assert len(read_table(tmp_path / "examples.parquet", kind="examples")) == 0
    assert len(read_table(tmp_path / "background.parquet", kind="background")) == 12


def test_codes_of_all_active_tokens_are_counted(artifacts: Artifacts, tmp_path: Path) -> None:
    documents.run(inputs(), artifacts.parents, tmp_path, QUIET)
    code = artifacts.crosscoder.encode(artifacts.x).detach()
    code[torch.arange(len(code)) % 40 == 0] = 0  # BOS is masked
    listed = read_json(tmp_path / "selection.json")["latents"]
    assert len(listed) > 3
    for entry in listed:
        active = int((code[:, entry["latent"]] > 0).sum())
        assert sum(entry["histogram"]["counts"]) == active
        assert entry["histogram"]["edges"][-1] >= float(code[:, entry["latent"]].max())


def test_logits_come_from_the_models_that_were_harvested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built = build(tmp_path / "built")
    scaled(built, GENEROUS, built.parents["scale"])
    AutoModelForCausalLM.from_config(Gemma2Config(**{**GEMMA.to_dict(), "hidden_size": 8})).save_pretrained(
        tmp_path / "model"
    )
    model = {"name": "m", "path": str(tmp_path / "model")}
    write_manifest(built.parents["harvest_tuned"], {"inputs": {"model": model}})
    monkeypatch.setattr(TokenSet, "tokenizer", ["token"] * 50)
    documents.run(inputs(), built.parents, tmp_path, QUIET)
    record = read_json(tmp_path / "selection.json")
    assert [len(record["latents"][0]["logits"]["tuned"][end]) for end in ("top", "bottom")] == [10, 10]
    assert "base" not in record["latents"][0]["logits"]
    assert record["notices"][0].startswith("no logits of the base model: ")


def test_drifted_latents_get_documents_under_a_role_of_their_own(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    scaled(artifacts, SelectionSettings(min_tokens=5, min_documents=3), tmp_path / "scale")
    parents = {**artifacts.parents, "scale": tmp_path / "scale"}
    records = []
    for n_drifted in (0, 4):
        draft = tmp_path / f"{n_drifted}"
        draft.mkdir()
        settings = SETTINGS.model_copy(update={"n_drifted": n_drifted})
        documents.run(inputs(documents=settings), parents, draft, QUIET)
        records.append(read_json(draft / "selection.json"))
    before, after = (record["latents"] for record in records)
    assert "drifted" not in records[0]["n_latents"]
    assert after[: len(before)] == before
    added = {entry["latent"] for entry in after[len(before) :]}
    top = drifted(read_table(tmp_path / "scale" / "latents.parquet", kind="latents")).latents[:4]
    assert added == set(top) - {entry["latent"] for entry in before}
    assert len(added) == records[1]["n_latents"]["drifted"] > 0
    examples = read_table(tmp_path / "4" / "examples.parquet", kind="examples")
    assert added <= set(examples["latent"])


def test_keys_stay_where_no_drifted_latents_are_asked_for() -> None:
    assert "n_drifted" not in documents.DocumentsSettings().identity()
    assert documents.DocumentsSettings(n_drifted=50).identity()["n_drifted"] == 50
