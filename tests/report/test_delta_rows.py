"""Sign stability against numbers worked out by hand."""

import math

import pytest

from crossdiff.report.delta_rows import DeltaRow, SignStability, sign_stability


def row(change: float, low: float, high: float, *, counts: tuple[int, int] = (4, 6)) -> DeltaRow:
    return DeltaRow(
        level="category", name="x", parent=None, counts=counts, totals=(40, 40), shares=(0.1, 0.15),
        change=change, interval=(low, high), p_value=0.5, q_value=0.9,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("more", "less", "share", "chance"),
    [
        (5, 0, 1.0, 2 / 32),  # two of the 32 outcomes of five coins
        (1, 4, 0.8, 2 * (5 + 1) / 32),
        (3, 2, 0.6, 1.0),  # half of all outcomes, twice
        (1, 0, 1.0, 1.0),
    ],
)
def test_share_and_chance_of_the_more_frequent_sign(
    more: int, less: int, share: float, chance: float
) -> None:
    found = SignStability(more=more, less=less, clear_more=0, clear_less=0, unknown=0)
    assert found.share == pytest.approx(share)
    assert found.chance() == pytest.approx(chance)


def test_signs_are_counted_with_and_without_clear_intervals() -> None:
    rows = [
        row(0.5, 0.1, 1.0),
        row(0.5, -0.3, 1.0),
        row(-0.2, -0.5, 0.4),
        row(math.inf, math.nan, math.nan, counts=(0, 3)),  # new: no share in the reference
        row(math.nan, math.nan, math.nan, counts=(0, 0)),
        row(0.0, -0.2, 0.2),
        None,
    ]
    found = sign_stability(rows)
    assert (found.more, found.less, found.clear_more, found.clear_less, found.unknown) == (3, 1, 1, 0, 3)
    assert found.share == 0.75
    assert found.sign == "more"


def test_without_a_signed_run_nothing_is_claimed() -> None:
    found = sign_stability([None, None])
    assert found.sign == "unknown"
    assert math.isnan(found.share)
    assert math.isnan(found.chance())
