"""What counts as yes and no in the logs of evaluation tools, and what is no count at all."""

import math

import pytest

from crossdiff.studies.behaviour.binary_scores import LoggedSet, counted, log_of, verdict


@pytest.mark.parametrize(
    ("value", "expected"),
    [("C", "yes"), ("I", "no"), ("N", "no"), ("P", "partial"), (1, "yes"), (0.0, "no"), (True, "yes"),
     ("1.0", "yes"), ("No", "no"), ("false", "no"), (None, "unscored"), (math.nan, "unscored"),
     ("nan", "unscored"), (0.5, "grade"), (3, "grade"), (10**400, "grade"), ("poetic", "grade"),
     ([1, 0], "grade")],
)  # fmt: skip
def test_a_score_is_yes_no_or_nothing_to_count(value: object, expected: str) -> None:
    assert verdict(value) == expected


def test_counts_by_hand() -> None:
    """Of six answers one has no score; two of five are right, one of the wrong ones only partly so."""
    found = counted("xstest/refusal", "xstest", ["C", "I", "P", None, "C", "N"])
    assert found == LoggedSet(name="xstest/refusal", task="xstest", shown=2, n=5, n_unjudged=1, n_partial=1)


def test_one_grade_leaves_the_whole_score_out_with_its_reason() -> None:
    log = log_of("m", "task", {"acc": [1, 0], "bleu": [1, 0.3], "none": [None]})
    assert [one.name for one in log.sets] == ["task/acc"]
    assert log.left_out == {
        "task/bleu": "not every score is yes or no, as '0.3'", "task/none": "no answer has a score"
    }  # fmt: skip
