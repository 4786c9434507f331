"""The published numbers: one file, and the counts beside each percentage reproduce it."""

from pathlib import Path

import pytest

from crossdiff.studies.published import published
from crossdiff.taxonomy.scheme import PaperTaxonomy

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
