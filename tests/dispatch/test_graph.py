"""The graph of a submitted plan: states, reasons, the table."""

from pathlib import Path

import pytest
from fake_plan import chain, submission

from crossdiff.dispatch.graph import Node, graph_table, nearest, read_graph, why
from crossdiff.dispatch.register import Register
from crossdiff.dispatch.slurm import submit


@pytest.fixture
def failed(tmp_path: Path, stub: Path) -> list[Node]:
    """tokens finished, harvests running and waiting, train failed with a log, the rest cancelled."""
    store = tmp_path / "store"
    plan = chain("pt_it", layer=1)
    submit(submission(store, plan))
    (plan[0].folder(store)).mkdir(parents=True)
    (plan[0].folder(store) / "manifest.json").write_text("{}")
    states = [
        "RUNNING|None",
        "PENDING|Resources",
        "FAILED|NonZeroExitCode",
        "CANCELLED|None",
        "CANCELLED|None",
    ]
    entries = Register(store).read(step.key for step in plan)
    for step, state in zip(plan[1:], states, strict=True):
        (stub / f"{entries[step.key].job}.state").write_text(state)
    log = entries[plan[3].key].log
    log.parent.mkdir(parents=True, exist_ok=True)
    log.write_text("submitit INFO - x\nTraceback\n\nValueError: the reason\nsrun: error: task 0: Exited\n")
    return read_graph(plan, store)


def test_every_step_has_its_state(failed: list[Node]) -> None:
    states = [node.state for node in failed]
    assert states == ["finished", "running", "waiting", "failed", "cancelled", "cancelled"]


def test_the_reason_of_a_failure_ends_with_the_last_lines_of_its_log(failed: list[Node]) -> None:
    first, *lines = why(failed[3], failed)
    assert first.endswith(f"failed; log: {failed[3].entry.log}")  # type: ignore[union-attr]
    assert lines == ["  | Traceback", "  | ValueError: the reason"]
    assert why(failed[5], failed) == ["cancelled, because train pt_it failed"]


def test_the_table_shows_jobs_dependencies_and_logs(failed: list[Node]) -> None:
    lines = graph_table(failed).splitlines()
    assert lines[0].split() == ["step", "key", "state", "job", "after", "log"]
    assert lines[3].endswith(str(failed[1].entry.log))  # type: ignore[union-attr]
    assert "(Resources)" in lines[4]
    assert lines[-1] == "6 steps: 1 finished, 1 running, 1 waiting, 1 failed, 2 cancelled"


def test_a_job_whose_log_could_not_be_opened_points_at_the_store(
    failed: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdiff.dispatch.graph.exit_code", lambda job: "0:53")
    (line,) = why(failed[3], failed)
    assert "the compute node does not see the store" in line


def test_a_failed_job_without_a_log_points_at_the_store(failed: list[Node]) -> None:
    assert failed[3].entry is not None
    failed[3].entry.log.unlink()
    (line,) = why(failed[3], failed)
    assert "left no log at" in line
    assert "store=/shared" in line


def test_waiting_for_the_nearest_is_waiting_for_all() -> None:
    tokens, pt, it, train, scale, report = chain("pt_it", layer=1)
    assert nearest([tokens, pt, train, scale]) == [scale]
    assert nearest([tokens, pt, it]) == [pt, it]
    assert nearest([]) == []
    assert nearest(report.parents.values()) == [scale]
