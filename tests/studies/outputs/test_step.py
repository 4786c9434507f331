"""Planted truth: a tuned head with a raised bias ranks its tokens first; equal models give nothing."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from transformers import PhiForCausalLM

from crossdiff.data.tokens import write_token_set
from crossdiff.io.tables import read_json, read_table
from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Runtime
from crossdiff.studies.outputs import OutputsInputs, passes, step
from tests.model_folders import make_tokenizer
from tests.raised_bias import RAISED, save_biased

QUIET = Runtime(progress=False)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("models")
    save_biased(root / "base")
    save_biased(root / "tuned", raised=RAISED)
    save_biased(root / "narrow", vocabulary=300)
    tokenizer = make_tokenizer()
    words = "the cat sat on a red mat why because hello two dog".split()
    texts = [" ".join(words[i % 12 :] + words[: i % 5]) + f" <b>{i}" for i in range(80)]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    write_token_set(
        root / "tokens",
        documents=[(f"d{i}", "web") for i in range(len(ids))],
        ids=torch.tensor([token for document in ids for token in document]),
        offsets=torch.tensor([0, *map(len, ids)]).cumsum(0),
        kind=torch.zeros(sum(map(len, ids)), dtype=torch.uint8),
    )
    tokenizer.save_pretrained(root / "tokens" / "tokenizer")
    return root


def inputs(root: Path, tuned: str, **more) -> OutputsInputs:
    base, second = (
        ModelSettings(name=name, path=str(root / name), dtype="float32") for name in ("base", tuned)
    )
    made = {"base": base, "tuned": second, "fingerprints": ("base", tuned), "n_topics": 4, "n_background": 10}
    return OutputsInputs(**made, **more)


def outcome(root: Path, tuned: str, draft: Path, **more) -> tuple[dict, pd.DataFrame]:
    draft.mkdir(exist_ok=True)
    step.run(inputs(root, tuned, **more), {"tokens": root / "tokens"}, draft, QUIET)
    table = pd.read_csv(draft / "tokens.csv", dtype={"token": str}, keep_default_na=False)
    return read_json(draft / "outputs.json"), table


def test_the_tokens_of_a_raised_bias_rank_first(models: Path, tmp_path: Path) -> None:
    record, tokens = outcome(models, "tuned", tmp_path / "draft", top_k=3)
    assert set(tokens["token"][:3]) == {" dog", " tree", " blue"}
    assert tokens["share_top"][:3].tolist() == [1, 1, 1]
    assert tokens["share_raised"][:3].tolist() == tokens["share_positive_logit"][:3].tolist() == [1, 1, 1]
    assert tokens["share_positive_logit"][3:].max() == 0  # the bias moves no other logit,
    assert tokens["share_lowered"][3:].min() == 1  # but every other probability
    assert tokens["low"][0] == pytest.approx(80 / (80 + 1.96**2), abs=1e-3)  # Wilson, 80 of 80
    assert record["kl_low"] < record["kl"] < record["kl_high"]
    assert record["n_documents"] == 80
    assert sorted(record["most_raised"][:3]) == [" blue", " dog", " tree"]
    examples = read_table(tmp_path / "draft" / "examples.parquet", kind="examples")
    first = examples.iloc[0]
    assert first["tokens"][first["peak"]] in (" dog", " tree", " blue")
    assert len(first["tokens"]) == len(first["codes"]) == len(first["kinds"])
    documents = pd.read_csv(tmp_path / "draft" / "documents.csv")
    assert documents["gain"].is_monotonic_decreasing
    assert (documents["kl"] > 0).all()
    assert not (tmp_path / "draft" / "parts").exists()


def test_figures_are_those_of_transformers(models: Path, tmp_path: Path) -> None:
    """One document through the two models alone, in float64 where it matters."""
    outcome(models, "tuned", tmp_path / "draft")
    row = pd.read_csv(tmp_path / "draft" / "documents.csv").set_index("document_id").loc["d7"]
    tokens = step._corpus(inputs(models, "tuned"), models / "tokens").token_set
    start, stop = tokens.offsets[7:9].tolist()
    ids = tokens.ids[start:stop].long()
    for name in ("base", "tuned"):
        logits = PhiForCausalLM.from_pretrained(models / name)(ids[None]).logits[0, :, :].double()
        log = torch.log_softmax(logits[:-1, : len(tokens.tokenizer)], -1)
        mean = -log.gather(1, ids[1:, None]).mean().detach()
        assert row[f"nll_{name}"] == pytest.approx(float(mean), rel=1e-5)


def test_equal_models_give_nothing(models: Path, tmp_path: Path) -> None:
    shutil.copytree(models / "base", models / "same", dirs_exist_ok=True)
    record, tokens = outcome(models, "same", tmp_path / "draft")
    assert record["n_tokens_that_differ"] == 0
    assert record["kl"] == record["n_likelier"] == len(tokens) == len(record["topics"]) == 0
    assert record["most_raised"] == []
    assert read_json(tmp_path / "draft" / "selection.json")["latents"] == []


def test_a_killed_run_goes_on_where_it_was(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(passes, "PART", 30)
    whole, _ = outcome(models, "tuned", tmp_path / "whole")
    original, calls = passes.Reader.changes, []

    def killed(self, corpus, documents):
        calls.append(len(documents))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(self, corpus, documents)

    monkeypatch.setattr(passes.Reader, "changes", killed)
    with pytest.raises(KeyboardInterrupt):
        outcome(models, "tuned", tmp_path / "draft")
    again, _ = outcome(models, "tuned", tmp_path / "draft")
    assert calls == [30, 30, 20, 20]
    assert json.dumps(again) == json.dumps(whole)


def test_a_model_without_all_tokens_is_refused(models: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"predicts 300 tokens .* vocabularies differ"):
        outcome(models, "narrow", tmp_path / "draft")
