"""Results folders are read by a glob, ordered by what they differ in, refused with a way out."""

import json
from pathlib import Path

import pytest

from crossdiff.report.runs import read_runs, varying_settings
from tests.report_runs import write_run


def test_runs_come_in_the_order_of_the_settings_they_differ_in(tmp_path: Path) -> None:
    for layer, seed in ((10, 0), (2, 1), (2, 0)):
        write_run(
            tmp_path / f"r_{layer}_{seed}", settings={"layer": layer, "seed": seed, "corpus.name": "toy"}
        )
    runs = read_runs(f"{tmp_path}/r_*")
    assert [run.name for run in runs] == ["r_2_0", "r_2_1", "r_10_0"]
    assert varying_settings(runs) == ["layer", "seed"]
    row = runs[0].delta("safety", "category")
    assert row is not None
    assert (row.change, row.counts) == (0.5, (10, 15))
    assert runs[0].delta("nothing", "category") is None


def test_equal_folder_names_are_told_apart_by_their_parents(tmp_path: Path) -> None:
    for lab in ("here", "there"):
        write_run(tmp_path / lab / "toy", settings={})
    assert [run.name for run in read_runs(f"{tmp_path}/*/toy")] == ["here/toy", "there/toy"]


def test_one_run_or_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"none among 1 matches with a summary.json.*compare.runs='results"):
        read_runs(f"{tmp_path}/*")
    write_run(tmp_path / "one", settings={})
    with pytest.raises(ValueError, match=f"only {tmp_path}/one with a summary.json"):
        read_runs(f"{tmp_path}/*")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "is no summary of a run"),
        ("[]", "is no summary of a run"),
        (json.dumps({"version": 99}), "has version 99, this crossdiff reads version 1"),
    ],
)
def test_an_unreadable_summary_names_its_file(tmp_path: Path, content: str, message: str) -> None:
    write_run(tmp_path / "good", settings={})
    broken = write_run(tmp_path / "broken", settings={}) / "summary.json"
    broken.write_text(content)
    with pytest.raises(ValueError, match=f"{broken} {message}"):
        read_runs(f"{tmp_path}/*")


def test_a_comparison_without_its_deltas_names_the_file(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_run(tmp_path / name, settings={})
    (tmp_path / "two" / "deltas.csv").unlink()
    with pytest.raises(ValueError, match=r"two/deltas.csv is missing"):
        read_runs(f"{tmp_path}/*")
