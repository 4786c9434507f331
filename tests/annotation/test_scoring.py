"""Scores are accuracies on held-out documents, against negatives that are never the latent's own."""

from __future__ import annotations

import numpy as np
import pytest

from crossdiff.annotation.scoring import Task, detection_task, fuzz_task, intruder_task
from crossdiff.annotation.subjects import Subject
from tests.annotation.campaign import background, subjects


def generator() -> np.random.Generator:
    return np.random.default_rng(0)


def test_balanced_accuracy_by_hand() -> None:
    """Hit rate 1/2 on two true texts, 2/3 on three false ones: (1/2 + 2/3) / 2."""
    task = Task(("a", "b", "c", "d", "e"), (True, True, False, False, False))
    assert task.balanced_accuracy([0, 2]) == pytest.approx(7 / 12)
    assert task.balanced_accuracy([]) == 0.5
    assert task.balanced_accuracy([0, 1]) == 1


def test_detection_shows_held_out_windows_only_and_half_similar_negatives() -> None:
    latents = subjects(31, n_examples=4)
    own = latents[0]
    task = detection_task(own, latents, background(), generator())
    assert task is not None
    assert sum(task.truth) == 4
    assert len(task.texts) == 8
    held_out = {"".join(example.tokens) for example in own.score}
    explained = {"".join(example.tokens) for example in own.explain}
    shown = {text for text, true in zip(task.texts, task.truth, strict=True) if true}
    assert shown == held_out
    assert not explained & set(task.texts)
    similar = {"".join(e.tokens) for e in latents[30].score[:1]}
    assert similar & set(task.texts)


def test_fuzz_marks_as_many_inactive_tokens() -> None:
    task = fuzz_task(subjects(1)[0], generator())
    assert task is not None
    assert task.truth.count(True) == task.truth.count(False) == 2
    assert all(text.count("«") == 1 for text in task.texts)


def test_an_intruder_is_one_among_the_latents_own() -> None:
    task = intruder_task(subjects(1)[0], background(), generator())
    assert task is not None
    assert task.truth.count(True) == 1
    assert len(task.texts) == 5


def test_a_task_that_cannot_be_set_is_none_and_not_a_score() -> None:
    bare = Subject("00000", subjects(1)[0].explain)
    assert detection_task(bare, [bare], background(), generator()) is None
    assert fuzz_task(bare, generator()) is None
    assert intruder_task(bare, background(), generator()) is None
    assert intruder_task(subjects(1)[0], [], generator()) is None
