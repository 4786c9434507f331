"""Crosscoders that fail: what a comparison of several per pair goes on without, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from crossdiff.actions import run
from crossdiff.actions.failed_members import without_failed
from crossdiff.config import Experiment
from crossdiff.dispatch import local
from crossdiff.dispatch.loggers import NoTracker
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from tests.finished_annotation import experiment

SEVERAL = "comparison.n_seeds=2"


def step_of(asked: Experiment, name: str) -> Step:
    return next(step for step in plan(asked) if step.name == name)


def test_a_failed_member_is_left_out_and_the_compare_step_names_it(tmp_path: Path) -> None:
    asked = experiment(tmp_path, SEVERAL)
    (remaining,) = without_failed([asked], [step_of(asked, "train toy_pt_it_seed1")]) or []
    assert remaining.comparison is not None
    assert remaining.comparison.without == ("toy_pt_it_seed1",)
    assert step_of(remaining, "compare toy_pt_it_vs_toy_pt_simpo").inputs.left_out == ("toy_pt_it_seed1",)  # type: ignore[attr-defined]
    assert without_failed([remaining], [step_of(asked, "train toy_pt_it")]) is None, "its pair has no other"


@pytest.mark.parametrize("name", ["harvest it", "tokens toy", "annotate toy_pt_it_and_toy_pt_simpo"])
def test_a_step_that_all_members_need_cannot_be_left_out(tmp_path: Path, name: str) -> None:
    asked = experiment(tmp_path, SEVERAL)
    assert without_failed([asked], [step_of(asked, name)]) is None


def test_only_the_grid_points_that_have_the_crosscoder_change(tmp_path: Path) -> None:
    asked, other = experiment(tmp_path, SEVERAL), experiment(tmp_path, SEVERAL, "training.learning_rate=0.1")
    remaining = without_failed([asked, other], [step_of(asked, "scale toy_pt_it")])
    assert remaining is not None
    assert remaining[1] is other
    assert remaining[0].members["toy_pt_it"][0].name == "toy_pt_it_seed1"


def test_nothing_that_would_change_nothing_is_run_again(tmp_path: Path) -> None:
    asked = experiment(tmp_path, SEVERAL)
    (remaining,) = without_failed([asked], [step_of(asked, "train toy_pt_it_seed1")]) or []
    assert without_failed([remaining], [step_of(asked, "train toy_pt_it_seed1")]) is None
    assert without_failed([asked], []) is None


def test_the_other_steps_run_and_each_is_told_once(tmp_path: Path, monkeypatch, capsys) -> None:
    """The steps are stand-ins: no real crosscoder of a second fails, and what follows is the plan alone."""
    asked = experiment(tmp_path, SEVERAL)
    ended: list[str] = []

    def run_steps(
        steps: Sequence[Step], runtime: Runtime, *, finished: Callable, failed: Callable, n_processes: int
    ) -> list[local.Outcome]:
        for step in steps:
            if step.name == "train toy_pt_simpo_seed1":
                failed(step, error := ValueError("the loss is not finite"))
                raise error
            state = "reused" if step.name in ended else "done"
            ended.append(step.name)
            finished(local.Outcome(step, state, 1.0, {}))
        return []

    monkeypatch.setattr(local, "run_steps", run_steps)
    (remaining,), made = run._finish([asked], plan(asked), Runtime(store=tmp_path), NoTracker())
    names = [outcome.step.name for outcome in made]
    assert names == list(dict.fromkeys(names))
    assert {outcome.state for outcome in made} == {"done"}
    assert {step.name for step in plan(remaining)} <= set(names)
    said = capsys.readouterr().err
    assert "train toy_pt_simpo_seed1 failed: the loss is not finite" in said
    assert "comparison.without=[toy_pt_simpo_seed1]" in said
