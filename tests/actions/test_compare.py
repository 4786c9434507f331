"""action=compare as a user types it."""

from pathlib import Path

from tests.report_runs import write_run
from tests.test_command_line import crossdiff


def test_two_results_folders_give_one_page_without_naming_a_model(tmp_path: Path) -> None:
    for seed in (0, 1):
        write_run(tmp_path / f"toy_seed{seed}", settings={"seed": seed})
    page = tmp_path / "runs.html"
    done = crossdiff("action=compare", f"compare.runs={tmp_path}/toy_seed*", f"compare.page={page}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"comparison of 2 runs: {page}"
    assert "seed 1" in page.read_text()


def test_nothing_to_compare_is_one_message(tmp_path: Path) -> None:
    done = crossdiff("action=compare", f"compare.runs={tmp_path}/*")
    assert done.returncode == 2
    assert "it takes two to compare" in done.stderr
    assert "Traceback" not in done.stderr
