"""Paper: our changes beside the published ones, with the published fitting counts as a golden case."""

from collections import Counter
from pathlib import Path

import pytest

from crossdiff.studies.paper import Paper, published
from crossdiff.taxonomy.scheme import PaperTaxonomy


def labels(side: int, total: int) -> Counter[str]:
    """The smallest fitting counts as labels; classes are filled by one of their categories."""
    first = {
        "safety_moderation": "privacy_protection", "linguistic_multilingual": "translation",
        "technical": "mathematics",
    }  # fmt: skip
    counts = Counter(
        {first.get(change.name, change.name): change.counts[side] for change in published().changes}
    )
    counts["other"] += total - counts.total()
    return +counts


def test_the_published_counts_agree_with_themselves_and_exclude_nothing(make_run) -> None:
    run = make_run("comparison", labels(1, 112), labels(0, 89), n_exclusive={"pt_it": 113, "pt_simpo": 92})
    found = Paper().analyse({"comparison": run}, {})
    rows = {row["name"]: row for row in found.numbers["changes"]}
    assert rows["safety_moderation"]["change"] == pytest.approx(0.328, abs=0.001)
    assert all(row["inside"] in (True, None) for row in rows.values())
    assert not any(row["excludes_zero"] for row in rows.values())
    assert "113 and 92 against the published 113 and 92, which fit ours" in found.answer


def test_a_change_of_exactly_nothing_has_no_sign(make_run) -> None:
    same = {"translation": 3, "other": 7}
    found = Paper().analyse({"comparison": make_run("comparison", same, same)}, {})
    rows = {row["name"]: row for row in found.numbers["changes"]}
    assert rows["linguistic_multilingual"]["change"] == 0
    assert all(row["same_sign"] is None for row in rows.values())
    assert "none has a sign here" in found.answer


def test_new_and_empty_categories_are_told_as_in_the_delta_table(make_run) -> None:
    run = make_run("comparison", {"other": 7}, {"translation": 3, "other": 7})
    table = Paper().analyse({"comparison": run}, {}).charts[0].table
    assert table is not None
    cells = [[cell.text for cell in row.cells] for row in table.rows]
    assert {tuple(row[2:4]) for row in cells if row[4:6] == ["0", "0"]} == {("none in either", "no interval")}
    (new,) = {row[2] for row in cells if row[4:6] == ["3", "0"]}
    assert new == "new (3 vs 0)"


def test_nothing_labelled_is_no_verdict(make_run) -> None:
    answer = Paper().analyse({"comparison": make_run("comparison", {}, {})}, {}).answer
    assert "none has a sign here, and none can be held against an interval of ours" in answer


TOTALS = (89, 112)
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("change", published().changes, ids=lambda change: change.name)
def test_smallest_counts_give_the_published_percentage(change) -> None:
    treatment, reference = change.counts
    assert (treatment / TOTALS[0]) / (reference / TOTALS[1]) - 1 == pytest.approx(change.change, abs=0.0011)


def test_every_published_change_has_its_row_in_the_taxonomy() -> None:
    taxonomy = PaperTaxonomy().load()
    rows = {("class", group.name) for group in taxonomy.classes}
    rows |= {("category", category.name) for category in taxonomy.categories}
    assert {(change.level, change.name) for change in published().changes} <= rows


def test_no_study_repeats_a_published_number() -> None:
    numbers = ("0.328", "0.438", "1.517", "0.888", "-0.685", "0.482")
    modules = [*(ROOT / "src/crossdiff/studies").glob("*.py"), *(ROOT / "conf").rglob("*.yaml")]
    assert [path.name for path in modules if any(number in path.read_text() for number in numbers)] == []
