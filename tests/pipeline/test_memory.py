"""Memory of a training before it runs: the sum in the docs, what a plan says, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, LargestK, TopK
from crossdiff.pipeline import memory
from crossdiff.pipeline.plan import plan
from crossdiff.training.settings import TrainingSettings
from tests.composed import experiment

PAPER = DictionarySettings(n_latents=114_688)


def paper_gb(sparsity: LargestK = BatchTopK(k=100), **settings) -> float:  # noqa: B008
    training = TrainingSettings(n_steps=10, batch_size=4096, **settings)
    return memory.training_gb(PAPER, sparsity, training, d_model=3584)


def test_the_paper_size_has_the_sum_of_the_docs() -> None:
    weights = 4 * 114_688 * 4 * 3584 / 1e9
    assert weights == pytest.approx(6.58, abs=0.01)
    assert paper_gb() == pytest.approx(26.9, abs=0.2)
    assert paper_gb(optimizer="adam_8bit") == pytest.approx(17.0, abs=0.2)
    assert paper_gb(TopK(k=100)) - paper_gb() == pytest.approx(4 * 1.88, abs=0.1)
    assert paper_gb(accumulate=4) < paper_gb() == paper_gb(members=4)


def test_a_plan_tells_the_largest_training_and_how_many_members_need_it(tmp_path: Path) -> None:
    given = ("experiment=demo", "comparison.n_seeds=4", "training.members=4", f"store={tmp_path}")
    steps = plan(experiment(*given))
    job = memory.largest_training(steps, tmp_path)
    assert job is not None
    assert len(job.steps) == 4
    assert job.cost.memory_gb == job.steps[0].cost.memory_gb  # they may be trained one after the other
    line = memory.memory_line(steps, tmp_path)
    assert line is not None
    assert line.startswith(f"memory: {job.name} needs about ")
    assert line.endswith("; 4 members that share a reader need it 4 times at once")


def test_a_dictionary_of_differences_has_one_model_axis() -> None:
    one_axis = memory.training_gb(
        DictionarySettings(n_latents=114_688, architecture="diff_sae"), BatchTopK(k=100),
        TrainingSettings(n_steps=10, batch_size=4096), d_model=3584,
    )  # fmt: skip
    assert one_axis < 0.6 * paper_gb()


def test_a_run_that_does_not_fit_stops_before_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = plan(experiment("experiment=demo", "comparison.n_seeds=1", f"store={tmp_path}"))
    memory.refuse_what_does_not_fit(steps, tmp_path, device="cpu")
    monkeypatch.setattr(memory, "device_gb", lambda device: 1e-3)
    with pytest.raises(
        ValueError, match=r"train toy_.* GB of memory .*, and cuda has <0.1 GB; give a smaller"
    ):
        memory.refuse_what_does_not_fit(steps, tmp_path, device="cuda")
    unknown = [replace(step, cost=replace(step.cost, memory_gb=None)) for step in steps]
    memory.refuse_what_does_not_fit(unknown, tmp_path, device="cuda")
