"""run, status, cancel and retry on a stub scheduler."""

from pathlib import Path

import pytest
from fake_plan import chain, submission

from crossdiff.dispatch import status
from crossdiff.dispatch.graph import read_graph
from crossdiff.dispatch.register import Register
from crossdiff.dispatch.slurm import submit


def set_state(stub: Path, store: Path, step, state: str) -> None:
    (stub / f"{Register(store).read([step.key])[step.key].job}.state").write_text(state)


def test_run_returns_at_once_with_the_job_ids(
    tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = submission(tmp_path / "store", chain("pt_it", layer=1))
    assert status.perform("run", asked) == 0
    told = capsys.readouterr().out
    assert "submitted tokens toy as job 1" in told
    assert "6 jobs submitted for 6 steps; 0 steps were queued, 0 finished" in told
    status.perform("run", asked)
    told = capsys.readouterr().out
    assert "already queued: train pt_it (job 4)" in told
    assert "0 jobs submitted for 0 steps; 6 steps were queued, 0 finished" in told


def test_retry_says_what_goes_back(tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store, plan = tmp_path / "store", chain("pt_it", layer=1)
    asked = submission(store, plan)
    submit(asked)
    for step, state in zip(
        plan[3:], ("FAILED|NonZeroExitCode", "CANCELLED|None", "CANCELLED|None"), strict=True
    ):
        set_state(stub, store, step, state)
    status.perform("retry", asked)
    told = capsys.readouterr().out
    assert "train pt_it: failed (job 4), goes back into the queue" in told
    assert "submitted train pt_it as job 7" in told


def test_cancel_leaves_what_another_plan_waits_for(
    tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "store"
    submit(submission(store, chain("pt_it", layer=1)))
    submit(submission(store, chain("pt_simpo", layer=1)))
    status.perform("cancel", submission(store, chain("pt_it", layer=1)))
    told = capsys.readouterr().out.splitlines()
    assert [line.split(" (")[0] for line in told] == [
        "kept tokens toy", "kept harvest pt", "cancelled harvest it", "cancelled train pt_it",
        "cancelled scale pt_it", "cancelled report pt_it", "4 jobs cancelled",
    ]  # fmt: skip


def test_cancel_takes_array_tasks_along(tmp_path: Path, stub: Path) -> None:
    asked = submission(tmp_path / "store", chain("pt_it", layer=1), harvest_tasks=2)
    submit(asked)
    status.perform("cancel", asked)
    cancelled = {path.stem for path in stub.glob("*_?.state") if "CANCELLED" in path.read_text()}
    assert len(cancelled) == 4


def test_waiting_ends_with_the_reason_of_each_failure(
    tmp_path: Path, stub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store, plan = tmp_path / "store", chain("pt_it", layer=1)
    submit(submission(store, plan))
    for step in plan:
        set_state(stub, store, step, "CANCELLED|None")
    set_state(stub, store, plan[0], "FAILED|NonZeroExitCode")
    log = Register(store).read([plan[0].key])[plan[0].key].log
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("OSError: the disk\n")
    assert status.follow(plan, store, poll_seconds=0.01) == 1
    told = capsys.readouterr()
    assert "tokens toy: failed (job 1)" in told.out
    assert "tokens toy: job 1 failed" in told.err
    assert "  | OSError: the disk" in told.err
    assert "report pt_it: cancelled, because tokens toy failed" in told.err


def test_another_action_is_refused(tmp_path: Path, stub: Path) -> None:
    with pytest.raises(ValueError, match="action=export has no meaning with dispatch=slurm"):
        status.perform("export", submission(tmp_path / "store", chain("pt_it", layer=1)))


def test_a_table_is_cut_to_the_terminal(tmp_path: Path, stub: Path) -> None:
    store = tmp_path / "store"
    plans = [chain(f"pt_m{number}", layer=1) for number in range(12)]
    asked = submission(store, *plans)
    submit(asked)
    set_state(stub, store, plans[0][0], "RUNNING|None")
    graph = read_graph(asked.steps, store)
    whole = status.screenful(graph, columns=500, rows=200)
    assert len(whole) == len(asked.steps) + 3
    small = status.screenful(graph, columns=40, rows=10)
    assert [line.split()[0] for line in small] == ["step", "-" * 10, "tokens", "50"]
    assert max(map(len, small)) <= 39
