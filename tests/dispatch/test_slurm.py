"""Submitting plans: dependencies, one submission per step, refusals, two hundred grid points."""

import re
import time
from dataclasses import replace
from pathlib import Path

import pytest
from fake_plan import WithSource, chain, submission

from crossdiff.command_settings import SlurmDispatch
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.dispatch import slurm
from crossdiff.dispatch.graph import read_graph
from crossdiff.dispatch.register import Register
from crossdiff.dispatch.remote import RemotePart
from crossdiff.dispatch.sbatch import stage_resources
from crossdiff.dispatch.slurm import submit
from crossdiff.pipeline.steps import Step, merge
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Resources


def script(stub: Path, job: str) -> str:
    return (stub / f"{job}.sh").read_text()


def waits_for(stub: Path, job: str) -> set[str]:
    found = re.search(r"--dependency=afterok:([\d:]+)", script(stub, job))
    return set(found.group(1).split(":")) if found else set()


def job_ids(submitted, name: str) -> list[str]:
    return [number for job, number in submitted.new if job.name.startswith(name)]


def test_jobs_wait_for_the_jobs_of_their_parents_and_for_no_more(tmp_path: Path, stub: Path) -> None:
    submitted = submit(submission(tmp_path / "store", chain("pt_it", layer=1)))
    (tokens,), (pt,), (it,) = (job_ids(submitted, name) for name in ("tokens", "harvest pt", "harvest it"))
    (train,), (scale,), (report,) = (job_ids(submitted, name) for name in ("train", "scale", "report"))
    assert waits_for(stub, tokens) == set()
    assert waits_for(stub, pt) == waits_for(stub, it) == {tokens}
    assert waits_for(stub, train) == {pt, it}
    assert waits_for(stub, scale) == {train}
    assert waits_for(stub, report) == {scale}
    assert "--kill-on-invalid-dep=yes" in script(stub, train)
    assert "--signal=USR2@120" in script(stub, train)


def test_grid_points_share_steps_and_layers_share_a_forward_pass(tmp_path: Path, stub: Path) -> None:
    plans = [chain(pair, layer=layer) for pair in ("pt_it", "pt_simpo") for layer in (1, 2)]
    submitted = submit(submission(tmp_path / "store", *plans))
    assert len(job_ids(submitted, "tokens")) == 1
    assert len(job_ids(submitted, "harvest")) == 3
    assert len(job_ids(submitted, "train")) == 4
    assert sorted(len(job.steps) for job, _ in submitted.new if job.stage == "harvest") == [2, 2, 2]


def test_a_second_submission_submits_nothing(tmp_path: Path, stub: Path) -> None:
    asked = submission(tmp_path / "store", chain("pt_it", layer=1))
    first, second = submit(asked), submit(asked)
    assert len(first.new) == 6
    assert second.new == []
    assert second.jobs == first.jobs


def test_a_step_queued_by_an_earlier_command_is_taken_as_dependency(tmp_path: Path, stub: Path) -> None:
    first = submit(submission(tmp_path / "store", chain("pt_it", layer=1)))
    second = submit(submission(tmp_path / "store", chain("pt_simpo", layer=1)))
    assert job_ids(second, "tokens") == job_ids(second, "harvest pt") == []
    (train,), (simpo,) = job_ids(second, "train"), job_ids(second, "harvest simpo")
    assert waits_for(stub, train) == {*job_ids(first, "harvest pt"), simpo}
    assert waits_for(stub, simpo) == set(job_ids(first, "tokens"))


def test_a_finished_step_is_neither_submitted_nor_waited_for(tmp_path: Path, stub: Path) -> None:
    store = tmp_path / "store"
    plan = chain("pt_it", layer=1)
    for step in plan[:3]:
        folder = step.folder(store)
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text("{}")
    submitted = submit(submission(store, plan))
    assert [job.stage for job, _ in submitted.new] == ["train", "scale", "report"]
    assert waits_for(stub, job_ids(submitted, "train")[0]) == set()


def test_a_failed_job_is_submitted_again_with_its_cancelled_dependants(tmp_path: Path, stub: Path) -> None:
    asked = submission(tmp_path / "store", chain("pt_it", layer=1), chain("pt_simpo", layer=1))
    first = submit(asked)
    (failed,) = [number for job, number in first.new if job.name == "train pt_it"]
    (stub / f"{failed}.state").write_text("FAILED|NonZeroExitCode")
    for job, number in first.new:
        if job.name in ("scale pt_it", "report pt_it"):
            (stub / f"{number}.state").write_text("CANCELLED|None")
    second = submit(asked)
    assert [job.name for job, _ in second.new] == ["train pt_it", "scale pt_it", "report pt_it"]
    assert waits_for(stub, job_ids(second, "scale")[0]) == set(job_ids(second, "train"))


def test_a_dependency_that_can_never_be_satisfied_is_not_counted_as_queued(
    tmp_path: Path, stub: Path
) -> None:
    asked = submission(tmp_path / "store", chain("pt_it", layer=1))
    first = submit(asked)
    (stuck,) = job_ids(first, "report")
    (stub / f"{stuck}.state").write_text("PENDING|DependencyNeverSatisfied")
    assert [job.name for job, _ in submit(asked).new] == ["report pt_it"]


def test_a_harvest_can_be_an_array_over_shards_and_a_job_that_puts_them_together(
    tmp_path: Path, stub: Path
) -> None:
    submitted = submit(submission(tmp_path / "store", chain("pt_it", layer=1), harvest_tasks=4))
    (tokens,), (merge_job,) = job_ids(submitted, "tokens"), job_ids(submitted, "harvest pt")
    (array,) = waits_for(stub, merge_job)
    assert "--array=0-3%4" in script(stub, array)
    assert waits_for(stub, array) == {tokens}
    assert merge_job in waits_for(stub, job_ids(submitted, "train")[0])
    assert len(submitted.new) == 6


@pytest.mark.parametrize(
    ("device", "source", "expected"),
    [
        ("auto", CacheSource(), [("part", 1), ("part", 1), ("merge", 0)]),
        ("cpu", CacheSource(), [("part", 1), ("part", 1), ("whole", 0)]),
        ("auto", LiveSource(), [("whole", 1)]),
    ],
)
def test_the_job_after_an_array_merges_only_and_a_running_model_keeps_its_gpu(
    tmp_path: Path,
    stub: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    source: CacheSource | LiveSource,
    expected: list[tuple[str, int]],
) -> None:
    plain, seen = slurm._Submitter.sbatch, []

    def sbatch(self, job, calls, *rest):
        seen.extend(calls)
        return plain(self, job, calls, *rest)

    monkeypatch.setattr(slurm._Submitter, "sbatch", sbatch)
    step = Step("harvest", "pt", WithSource(text="pt", layers=(1,), source=source))
    asked = submission(tmp_path / "store", [step], harvest_tasks=2, gpus=1)
    submit(replace(asked, runtime=asked.runtime.model_copy(update={"device": device})))
    kinds = [
        "part" if isinstance(call, RemotePart) else "merge" if call.merges_only else "whole" for call in seen
    ]
    assert list(zip(kinds, (call.n_gpus for call in seen), strict=True)) == expected


def test_a_failed_array_task_makes_its_step_failed(tmp_path: Path, stub: Path) -> None:
    plan = chain("pt_it", layer=1)
    submitted = submit(submission(tmp_path / "store", plan, harvest_tasks=2))
    (merge_job,) = job_ids(submitted, "harvest pt")
    (array,) = waits_for(stub, merge_job)
    (stub / f"{array}_1.state").write_text("FAILED|NonZeroExitCode")
    (stub / f"{merge_job}.state").write_text("CANCELLED|None")
    (node,) = [node for node in read_graph(plan, tmp_path / "store") if node.step.name == "harvest pt"]
    assert (node.state, node.entry.job if node.entry else "") == ("failed", f"{array}_1")


def test_a_refused_partition_is_one_message_and_leaves_nothing_queued(tmp_path: Path, stub: Path) -> None:
    (stub / "refuse").write_text("partition=nope\n")
    stages = {"train": Resources(partition="nope")}
    asked = submission(tmp_path / "store", chain("pt_it", layer=1), stages=stages)
    with pytest.raises(
        ValueError, match=r"sbatch refused train pt_it: invalid partition specified: nope.*partition=nope"
    ):
        submit(asked)
    states = [path.read_text().split("|")[0] for path in stub.glob("*.state")]
    assert states == ["CANCELLED"] * 3


def test_without_sbatch_the_way_out_is_named(
    tmp_path: Path, fakes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"needs sbatch, srun.*dispatch=local"):
        submit(submission(tmp_path / "store", chain("pt_it", layer=1)))


def test_a_damaged_submission_record_names_its_file(tmp_path: Path, stub: Path) -> None:
    plan = chain("pt_it", layer=1)
    asked = submission(tmp_path / "store", plan)
    submit(asked)
    path = Register(tmp_path / "store").folder / "steps" / f"{plan[0].key}.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=f"{plan[0].key}.json is not a readable submission record"):
        submit(asked)


def test_resources_come_from_the_stage_then_the_command_then_the_profile_then_the_table(
    tmp_path: Path,
) -> None:
    profile = tmp_path / "lab.yaml"
    profile.write_text("partition: gpu\nhours: 5\nstages: {train: {hours: 7, cpus: 3}}\n")
    dispatch = SlurmDispatch(profile=str(profile), cpus=2, stages={"train": Resources(gpus=4)})
    found = stage_resources(protocol.stages(), dispatch, device="auto")
    assert (found["train"].gpus, found["harvest"].gpus, found["report"].gpus) == (4, 1, 0)
    assert (found["train"].hours, found["scale"].hours) == (7, 5)
    assert (found["train"].cpus, found["train"].partition) == (2, "gpu")


def test_on_the_cpu_no_gpu_is_asked_for_unless_named() -> None:
    found = stage_resources(
        protocol.stages(), SlurmDispatch(stages={"train": Resources(gpus=2)}), device="cpu"
    )
    assert (found["train"].gpus, found["harvest"].gpus) == (2, 0)


@pytest.mark.slow
def test_two_hundred_grid_points_are_submitted_within_a_minute(tmp_path: Path, stub: Path) -> None:
    started = time.monotonic()
    pairs = [f"pt_m{number}" for number in range(20)]
    plans = [chain(pair, layer=layer) for pair in pairs for layer in range(10)]
    submitted = submit(submission(tmp_path / "store", *plans))
    assert len(submitted.new) == 1 + 21 + 3 * 200
    assert len(merge(plans)) == len(submitted.jobs) == 1 + 21 * 10 + 3 * 200
    assert time.monotonic() - started < 60
