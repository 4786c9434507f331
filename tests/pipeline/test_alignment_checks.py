"""Pairs of two families: what is planned, and what is refused before any model has run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossdiff.command_settings import ExportSettings
from crossdiff.data.settings import LiveSource
from crossdiff.models.pair import ModelSettings
from crossdiff.pipeline.alignment_checks import check_alignment
from crossdiff.pipeline.plan import plan
from crossdiff.studies.one_pair import OnePair
from tests.composed import experiment
from tests.model_folders import make_tokenizer, save_model


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("pair")
    save_model(folder / "base", "llama", d_model=48, n_blocks=2, tokenizer=make_tokenizer(words=["mod"]))
    save_model(folder / "tuned", "qwen2", n_blocks=2, tokenizer=make_tokenizer(words=["model"]))
    (folder / "text.txt").write_text("the model")
    models = [f"model_pair.{name}={folder}/{name}" for name in ("base", "tuned")]
    return ["model_pair=custom", *models, "layer=1", "corpus=files", f"corpus.paths=[{folder}/text.txt]"]


FAMILIES = ("model_pair.alignment=characters", "selection=norm")


def test_every_model_reads_its_tokens_and_the_crosscoder_has_the_wider_width(pair: list[str]) -> None:
    steps = plan(experiment(*pair, *FAMILIES))
    tokens, *harvests = (step for step in steps if step.stage in ("tokens", "harvest"))
    assert tokens.inputs.tokenizer.name == "tuned"
    assert tokens.inputs.aligned.name == "base"
    assert {step.name: step.inputs.aligned for step in harvests} == {
        "harvest base": True,
        "harvest tuned": False,
    }
    shown_by_base = plan(experiment(*pair, *FAMILIES, "+model_pair.template=${model_pair.base}"))
    tokens = next(step for step in shown_by_base if step.stage == "tokens")
    assert (tokens.inputs.tokenizer.path, tokens.inputs.aligned.name) == (pair[1].partition("=")[2], "tuned")


def test_without_the_option_other_tokenizers_and_widths_are_refused_and_it_is_named(
    pair: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="need one d_model: .*model_pair.alignment=characters"):
        plan(experiment(*pair))
    save_model(tmp_path / "base", "llama", n_blocks=2, tokenizer=make_tokenizer(words=["mod"]))
    with pytest.raises(ValueError, match="need one tokenizer: .*model_pair.alignment=characters"):
        plan(experiment(*pair, f"model_pair.base={tmp_path}/base"))


@pytest.mark.parametrize(
    ("group", "changes", "told"),
    [
        ("selection", {"method": "minder"}, "selection.method=minder asks whether one model's direction"),
        ("selection", {"method": "both"}, "give selection=norm"),
        ("dictionary", {"architecture": "delta"}, "choose one of standard, dedicated_feature"),
        ("dictionary", {"architecture": "designated_shared"}, "choose one of standard, dedicated_feature"),
        ("training", {"optimizer": "adam_8bit"}, "choose adam"),
        ("training", {"loss_mix": -0.5}, "training.loss_mix multiplies the errors"),
        ("training", {"shards": 2}, "training.shards=2 does not know narrower models"),
        ("training", {"start": "a/file"}, "a crosscoder from a file"),
        ("documents", {"n_drifted": 5}, "documents.n_drifted ranks by latent scaling"),
        ("model_pair", {"template": ModelSettings(name="t", path="x/y")}, "template=x/y is neither model"),
        ("model_pair", {"crosscoder": "a/file"}, "a crosscoder from a file"),
    ],
)
def test_what_compares_directions_is_refused(pair: list[str], group: str, changes: dict, told: str) -> None:
    allowed = experiment(*pair, *FAMILIES)
    asked = allowed.model_copy(update={group: getattr(allowed, group).model_copy(update=changes)})
    with pytest.raises(ValueError, match=re.escape(told)):
        check_alignment(asked)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"source": LiveSource()}, "give source=cache"),
        ({"action": "ask"}, "action=ask reads texts with one tokenizer for both models"),
        ({"action": "export", "export": ExportSettings(what="neuronpedia")}, "export.what=neuronpedia would"),
        ({"study": OnePair()}, "the study OnePair compares directions"),
    ],
)
def test_what_reads_one_tokenizer_is_refused(pair: list[str], changes: dict, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        check_alignment(experiment(*pair, *FAMILIES).model_copy(update=changes))


def test_figures_tables_and_labels_of_a_finished_run_are_not_refused(pair: list[str]) -> None:
    for action in ("export", "validate", "taxonomy"):
        check_alignment(experiment(*pair, *FAMILIES).model_copy(update={"action": action}))


def test_documents_that_one_tokenizer_cannot_read_are_refused_before_the_first_step(
    pair: list[str], tmp_path: Path
) -> None:
    asked = (*pair, *FAMILIES, f"corpus.paths=[{tmp_path}/chats.jsonl]")
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "system", "content": "hello"}]}')
    with pytest.raises(ValueError, match="System role not supported"):
        plan(experiment(*asked))
    wordy = make_tokenizer(words=["mod"], template="{% for m in messages %}{{ m['content'] }}{% endfor %}")
    save_model(tmp_path / "base", "llama", d_model=48, n_blocks=2, tokenizer=wordy)
    by_base = (f"model_pair.base={tmp_path}/base", "+model_pair.template=${model_pair.base}")
    with pytest.raises(
        ValueError, match="of two families that skips only what the template of the shown tokens"
    ):
        plan(experiment(*asked, *by_base))
    save_model(tmp_path / "plain", "llama", d_model=48, n_blocks=2, tokenizer=make_tokenizer(template=None))
    (tmp_path / "chats.jsonl").write_text('{"messages": [{"role": "user", "content": "hello"}]}')
    with pytest.raises(ValueError, match="has no chat template"):
        plan(experiment(*asked, f"model_pair.base={tmp_path}/plain"))
    (tmp_path / "chats.jsonl").write_text('{"input_ids": [9, 10]}')
    with pytest.raises(ValueError, match="holds token ids, which two tokenizers cannot share"):
        plan(experiment(*asked))
