"""Coverage and validity of the delta table: promised ranges at full size, plain figures in a small one."""

from __future__ import annotations

import json

import pandas as pd
import pytest

from crossdiff.taxonomy.scheme import PaperTaxonomy
from experiments.bench.deltas import LEVELS, SHARES, coverage, main, names


@pytest.mark.slow
def test_the_study_s_counts_keep_the_promises() -> None:
    found = main(["n_simulations=1000"])
    covered = found["coverage"]
    assert 0.93 <= covered["shares_from_5_percent"]["covered"] <= 0.97
    assert covered["shares_below_5_percent"]["covered"] >= 0.93
    null = found["no_difference"]
    assert null["smallest_max_t_ks_p"] > 0.01
    for family in ("class_max_t", "category_fisher"):
        assert all(null[family][str(level)]["valid"] for level in LEVELS), null[family]


def test_a_small_study_counts_its_cases() -> None:
    found = main(["n_simulations=20", "draws=199"])
    assert json.loads(json.dumps(found)) == found
    assert set(found["coverage"]["categories"]) == set(names())
    n_cases = [
        found["coverage"][side]["n_cases"] for side in ("shares_from_5_percent", "shares_below_5_percent")
    ]
    assert n_cases[0] == 20 * 7
    assert n_cases[1] <= 20 * 4


def test_the_shares_are_of_every_class_and_leave_room_for_other() -> None:
    taxonomy = PaperTaxonomy().load()
    assert {taxonomy.parent(name) for name in names()} == {group.name for group in taxonomy.classes}
    assert sum(SHARES) < 1


def test_coverage_by_hand() -> None:
    """True change +50 %: two of three intervals hold it; the table without the category makes no case."""
    rows = [(0.2, 0.9, 8), (-0.1, 0.5, 8), (0.6, 2.0, 8), (float("nan"), float("nan"), 0)]
    first = names()[0]
    table = pd.DataFrame(
        [
            {"level": "category", "name": name, "ci_low": low, "ci_high": high, "count_reference": n,
             "count_treatment": n, "true_reference": 0.1, "true_treatment": 0.15}
            for name in names() for low, high, n in rows
        ]
    )  # fmt: skip
    found = coverage(table)
    assert found["categories"][first]["covered"] == pytest.approx(2 / 3)
    assert found["shares_from_5_percent"]["n_cases"] == 3 * len(names())
    assert found["shares_below_5_percent"]["n_cases"] == 0


def test_an_unknown_setting_is_refused() -> None:
    with pytest.raises(ValueError, match="n_layers"):
        main(["n_layers=3"])
