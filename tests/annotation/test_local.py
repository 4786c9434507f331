"""The local model: a real, tiny, random Llama scores every category; nothing leaves the machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from crossdiff.annotation.local import _ASK_CATEGORY, CONTENT_FREE, TransformersAnnotator
from crossdiff.annotation.settings import Transformers
from crossdiff.annotation.subjects import Subject
from tests.annotation.campaign import scheme, subjects
from tests.model_folders import make_tokenizer, save_model


@pytest.fixture(scope="module", params=[True, False], ids=["chat", "plain"])
def annotator(tmp_path_factory: pytest.TempPathFactory, request) -> TransformersAnnotator:
    folder = tmp_path_factory.mktemp("local") / "llama"
    tokenizer = make_tokenizer() if request.param else make_tokenizer(template=None)
    save_model(folder, "llama", tokenizer=tokenizer, n_blocks=2)
    settings = Transformers(path=str(folder), dtype="float32", max_prompt_tokens=220, n_examples=2)
    return TransformersAnnotator(settings, scheme()[:3], device="cpu")


def test_every_subject_gets_a_category_of_the_scheme(annotator: TransformersAnnotator) -> None:
    found = list(annotator.annotate(subjects(3)))
    assert [answer.key for answer in found] == ["00000", "00001", "00002"]
    assert {answer.category for answer in found} <= set(annotator.names)
    assert found == list(annotator.annotate(subjects(3)))
    assert all(answer.label is None or answer.label.isprintable() for answer in found)


def test_a_score_is_the_mean_log_probability_of_the_title(annotator: TransformersAnnotator) -> None:
    """Against one plain forward pass over prompt and title, without a cache."""
    prompt = annotator._prompt(_ASK_CATEGORY, CONTENT_FREE)
    scores = annotator._scores(prompt)
    for place in (0, len(annotator.names) - 1):
        answer = annotator.answers[place]
        ids = torch.cat([prompt, torch.tensor([answer])], dim=1)
        with torch.inference_mode():
            logits = annotator.model(ids).logits[0, prompt.shape[1] - 1 : -1].log_softmax(-1)
        expected = logits[torch.arange(len(answer)), torch.tensor(answer)].mean()
        assert scores[place] == pytest.approx(float(expected), abs=1e-4)


def test_long_examples_are_cut_and_the_question_stays(annotator: TransformersAnnotator) -> None:
    prompt = annotator._prompt(_ASK_CATEGORY, "word " * 5000)
    assert prompt.shape[1] <= 220
    assert annotator.tokenizer.decode(prompt[0]).rstrip().endswith("Category:")


def test_few_positions_cut_examples_or_are_refused(
    annotator: TransformersAnnotator, monkeypatch: pytest.MonkeyPatch
) -> None:
    question = annotator._prompt(_ASK_CATEGORY, "").shape[1]
    longest = max(12, *map(len, annotator.answers))
    monkeypatch.setattr(annotator, "n_positions", question + longest + 40)
    monkeypatch.setattr(
        annotator, "settings", annotator.settings.model_copy(update={"max_prompt_tokens": 3000})
    )
    assert annotator._prompt(_ASK_CATEGORY, "word " * 5000).shape[1] == question + 40
    monkeypatch.setattr(annotator, "n_positions", 64)
    with pytest.raises(
        ValueError, match="has 64 positions; question and answer take .* give a model with more"
    ):
        annotator._prompt(_ASK_CATEGORY, CONTENT_FREE)


def test_without_examples_it_is_uninterpretable(annotator: TransformersAnnotator) -> None:
    (answer,) = annotator.annotate([Subject("00000", ())])
    assert answer.state == "uninterpretable"


def test_a_model_that_is_trained_further_has_another_key_and_a_copy_the_same(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama", n_blocks=1)
    copy = shutil.copytree(folder, tmp_path / "copy")
    before = Transformers(path=str(folder)).identity()
    assert Transformers(path=str(copy)).identity() == before
    shutil.rmtree(folder)
    save_model(folder, "llama", seed=1, n_blocks=1)
    assert Transformers(path=str(folder)).identity() != before
