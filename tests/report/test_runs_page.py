"""The page of several runs holds every figure of merit, the deltas and their signs, and loads nothing."""

import re
from pathlib import Path

import pytest

from crossdiff.report.runs import read_runs, varying_settings
from crossdiff.report.runs_page import label, render
from tests.report_runs import CHANGES, write_run


@pytest.fixture
def page(tmp_path: Path) -> str:
    for layer in (1, 2):
        for seed in (0, 1):
            changes = CHANGES if seed else {**CHANGES, "safety": (-0.2, -0.5, 0.3)}
            settings = {"layer": layer, "seed": seed, "dictionary.n_latents": 1024, "sparsity.k": 24}
            write_run(
                tmp_path / f"r_{layer}_{seed}", settings=settings, n_exclusive=10 * layer, changes=changes
            )
    write_run(tmp_path / "r_<script><b>", settings={"layer": 2, "seed": 3}, changes={"safety": (0.4, 0.1, 1)})
    return render(read_runs(f"{tmp_path}/r_*"), title="Toy", folder=tmp_path)


def text_of(page: str, caption: str) -> list[list[str]]:
    """Cells of the rows of the table with that caption."""
    body = page.rsplit(f">{caption}</caption>", maxsplit=1)[-1].partition("</tbody>")[0]
    rows = re.findall(r"<tr.*?>(.*?)</tr>", body, flags=re.S)
    cells = [re.findall(r"<t[dh].*?>(.*?)</t[dh]>", row, flags=re.S) for row in rows]
    return [[re.sub("<.*?>", "", cell) for cell in row] for row in cells]


def test_runs_stand_by_settings_with_their_figures(page: str) -> None:
    head, *rows = text_of(page, "Runs by settings")
    assert head[:4] == ["Run", "layer", "seed", "dictionary.n_latents"]
    assert head[-8:-4] == ["Pair", "FVE, base", "FVE, tuned", "L0"]
    assert len(rows) == 10
    first = dict(zip(head, rows[0], strict=True))
    assert (first["Run"], first["layer"], first["Pair"]) == ("r_1_0", "1", "pt_it")
    assert (first["FVE, base"], first["L0"], first["Dead share"]) == ("0.9", "24.5", "1.0 %")
    assert (first["Exclusive to tuned"], first["Exclusive to base"]) == ("10", "–")


def test_figures_of_merit_are_laid_over_every_axis_that_varies(page: str) -> None:
    assert 'id="figure-over_layer"' in page
    assert 'id="figure-over_seed"' in page
    rows = text_of(page, "Over layer")
    assert rows[0] == ["Figure", "Pair", "layer 1", "layer 2"]
    means = {(row[0], row[1]): row[2:] for row in rows[1:]}
    assert means["Exclusive to tuned", "pt_it"] == ["10", "26.7"]  # (20 + 20 + 40) / 3
    assert ("Exclusive to base", "pt_it") not in means


def test_the_sign_of_every_category_is_counted(page: str) -> None:
    rows = {row[0]: row[1:] for row in text_of(page, "Sign stability")}
    assert rows["Safety"] == ["category", "more", "3", "2", "3", "0", "60.0 %", "1"]
    assert rows["Code"] == ["category", "less", "0", "4", "0", "1", "100.0 %", "0.125"]
    deltas = text_of(page, "Change of every class and category in every run")
    assert deltas[0][1] == "layer 1, dictionary size 1024, sparsity 24, seed 0"
    assert deltas[1][:2] == ["Safety", "−20.0 % (8 : 10)"]


def test_nothing_in_the_page_runs_or_loads_from_outside(page: str) -> None:
    assert "<b>" not in page.partition("<main")[2].partition("</main>")[0]
    assert "default-src &#39;none&#39;" in page
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page)


def test_a_run_is_labelled_by_what_tells_it_apart(tmp_path: Path) -> None:
    for layer in (1, 2):
        write_run(tmp_path / f"r{layer}", settings={"layer": layer, "seed": 0})
    runs = read_runs(f"{tmp_path}/*")
    assert [label(run, varying_settings(runs)) for run in runs] == ["layer 1", "layer 2"]
    assert label(runs[0], ["layer", "mask.mask"]) == "r1"
