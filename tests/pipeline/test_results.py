"""Results folders: one per run, and nothing left of another run's report."""

import json
import os
from pathlib import Path

import pytest

from crossdiff.pipeline.results import check_folder, own_folders, publish_results


def report(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True)
    for name, text in {"report_html": "<html>", "summary_json": "{}", "manifest_json": "{}", **files}.items():
        stem, _, ending = name.rpartition("_")
        (folder / f"{stem}.{ending}").write_text(text)
    return folder


def steps(*names: str, key: str) -> list[dict]:
    return [{"name": name, "key": f"{key}{place}"} for place, name in enumerate(names)]


def test_grid_points_that_would_share_a_folder_are_named_by_what_differs() -> None:
    folders = [Path("results/custom_4")] * 2
    overrides = [["model_pair=custom", "seed=1"], ["model_pair=custom", "seed=2"]]
    assert own_folders(folders, overrides) == [
        Path("results/custom_4_seed_1"),
        Path("results/custom_4_seed_2"),
    ]


def test_grid_points_with_folders_of_their_own_keep_them() -> None:
    folders = [Path("results/it_1"), Path("results/it_2")]
    assert own_folders(folders, [["layer=1"], ["layer=2"]]) == folders
    assert own_folders(folders[:1], [["layer=1", "seed=3"]]) == folders[:1]


def test_only_what_differs_inside_a_shared_folder_is_in_its_name() -> None:
    grid = [("a_1", "x/y"), ("a_2", "x/y"), ("a_1", "z"), ("a_2", "z")]
    named = own_folders(
        [Path(name) for name, _ in grid],
        [[f"layer={name[-1]}", f"model_pair.tuned={tuned}"] for name, tuned in grid],
    )
    tuned = ["model_pair.tuned_x_y"] * 2 + ["model_pair.tuned_z"] * 2
    assert [path.name for path in named] == [
        f"a_{layer}_{name}" for layer, name in zip("1212", tuned, strict=True)
    ]


def test_a_file_in_the_way_is_found_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "file.csv").touch()
    for results in (tmp_path / "file.csv", tmp_path / "file.csv" / "deep" / "er"):
        with pytest.raises(ValueError, match=r"file\.csv is a file, and the report needs a folder"):
            check_folder(results)
    check_folder(tmp_path / "not" / "there" / "yet")
    check_folder(Path("results/not_there_yet"))
    assert not (tmp_path / "not").exists()


def test_a_folder_that_cannot_be_written_is_found_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ValueError, match=rf"{tmp_path} cannot be written; give another results_dir"):
        check_folder(tmp_path / "results")


def test_the_files_of_another_run_are_removed_and_those_of_the_user_stay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    two = report(tmp_path / "two", deltas_csv="1", latents_parquet="2")
    publish_results(two, results, steps("train a", "report two", key="x"))
    for name in ("notes.csv", "metrics.a.csv", "steps.csv"):
        (results / name).write_text("kept or not")
    one = report(tmp_path / "one", latents_parquet="3")
    page = publish_results(one, results, steps("train b", "report one", key="y"))
    assert sorted(path.name for path in results.iterdir()) == [
        "latents.parquet", "notes.csv", "report.html", "summary.json"
    ]  # fmt: skip
    assert page == results / "report.html"
    assert (results / "latents.parquet").read_text() == "3"
    assert json.loads((results / "summary.json").read_text())["files"] == [
        "latents.parquet", "report.html", "summary.json"
    ]  # fmt: skip
    assert "held the report of another run (x1)" in capsys.readouterr().out


def test_the_same_report_again_removes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = tmp_path / "results"
    made = report(tmp_path / "made", deltas_csv="1")
    for _ in range(2):
        publish_results(made, results, steps("train a", "report made", key="x"))
        (results / "metrics.a.csv").write_text("curve")
    assert (results / "metrics.a.csv").is_file()
    assert capsys.readouterr().out == ""


def test_files_that_no_run_wrote_are_renamed_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "mine"
    results.mkdir()
    (results / "report.html").write_text("mine")
    (results / "summary.json").write_text('{"of": "another tool"}')
    made = report(tmp_path / "r")
    publish_results(made, results, steps("report", key="a"))
    assert (results / "report.html.before").read_text() == "mine"
    assert "another tool" in (results / "summary.json.before").read_text()
    assert "is of no run here and was in the way; it is now report.html.before" in capsys.readouterr().out
    publish_results(made, results, steps("report", key="a"))
    (results / "deltas.csv").write_text("mine too")
    publish_results(report(tmp_path / "s", deltas_csv="1"), results, steps("report", key="a"))
    assert (results / "deltas.csv.before").read_text() == "mine too", "a run's folder may hold more"
    (results / "summary.json").unlink()
    publish_results(report(tmp_path / "t", report_html="<p>"), results, steps("report", key="b"))
    texts = {path.name: path.read_text() for path in results.glob("report.html.before*")}
    assert texts == {"report.html.before": "mine", "report.html.before2": "<html>"}, "none is overwritten"


def test_a_report_whose_copying_was_cut_off_is_copied_again_and_nothing_is_renamed(tmp_path: Path) -> None:
    made, results = report(tmp_path / "r"), report(tmp_path / "mine")
    (results / "summary.json").unlink()
    publish_results(made, results, steps("report", key="a"))
    assert not list(results.glob("*.before"))


def test_points_whose_names_differ_in_replaced_characters_alone_get_folders_of_their_own() -> None:
    folders = [Path("results/x_1")] * 3
    named = own_folders(folders, [["name=a/c"], ["name=a_c"], ["name=b"]])
    assert len(set(named)) == 3
    assert named[2] == Path("results/x_1_name_b")
    assert own_folders(folders, [["seed=1"]] * 3) == folders


def test_long_names_of_grid_points_are_cut_and_stay_different() -> None:
    given = [[f"corpus.paths=[{'long/' * 80}{end}]"] for end in ("a", "b")]
    named = own_folders([Path("results/x_1")] * 2, given)
    assert len(set(named)) == 2
    assert max(len(path.name) for path in named) <= 200
