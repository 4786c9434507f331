"""Memory of a training before it runs: the sum in the docs, what a plan says, what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, LargestK, TopK
from crossdiff.pipeline import memory
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step
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


def _needing(steps: list[Step], **memory: Any) -> list[Step]:
    """The trainings of a plan, of other sizes."""
    return [replace(s, cost=replace(s.cost, **memory)) for s in steps if s.stage == "train"]


def test_a_block_of_latents_needs_its_share_and_the_plan_says_which_fit(tmp_path: Path) -> None:
    batch = 4 * 4096 * (4 * 2 * 3584 + 4096) / 1e9  # activations and one chunk of the product: on every rank
    assert paper_gb(shards=2) - batch == pytest.approx((paper_gb() - batch) / 2, rel=1e-4)
    training = TrainingSettings(n_steps=10, batch_size=4096)
    offered = memory.sharded_gb(PAPER, BatchTopK(k=100), training, d_model=3584)
    assert offered == tuple((shards, paper_gb(shards=shards)) for shards in (2, 4, 8, 16))
    assert memory.sharded_gb(PAPER, TopK(k=100), training, d_model=3584) == ()
    odd = DictionarySettings(n_latents=114_686)
    assert [n for n, _ in memory.sharded_gb(odd, BatchTopK(k=100), training, d_model=3584)] == [2]

    steps = plan(experiment("experiment=demo", "comparison.n_seeds=1", f"store={tmp_path}"))
    large = _needing(steps, memory_gb=26.9, shards_gb=offered)
    line = memory.memory_line(large, tmp_path)
    assert line is not None
    assert "deals the latents to R devices (13.7 GB on each of 2, 7.1 GB on each of 4, 3.8" in line


def test_a_refused_run_is_told_how_many_shards_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "device_gb", lambda device: 10.0)
    steps = plan(experiment("experiment=demo", "comparison.n_seeds=1", f"store={tmp_path}"))
    offered = ((2, 13.8), (4, 7.2))
    large = _needing(steps, memory_gb=26.9, shards_gb=offered)
    with pytest.raises(
        ValueError, match=r"give training.shards=4 on 4 such GPUs \(7.2 GB on each\), a smaller"
    ):
        memory.refuse_what_does_not_fit(large, tmp_path, device="cuda")
    with pytest.raises(ValueError, match=r"and cpu has 10.0 GB; give a smaller"):
        memory.refuse_what_does_not_fit(large, tmp_path, device="cpu")
    dealt = plan(
        experiment("experiment=demo", "comparison.n_seeds=1", "training.shards=2", f"store={tmp_path}")
    )
    dealt = _needing(dealt, memory_gb=6.0)
    memory.refuse_what_does_not_fit(dealt, tmp_path, device="cuda")
    with pytest.raises(ValueError, match="12.0 GB of memory"):  # both processes on one machine
        memory.refuse_what_does_not_fit(dealt, tmp_path, device="cpu")
    line = memory.memory_line(dealt, tmp_path)
    assert line is not None
    assert "6.0 GB on each of its 2 devices" in line


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
