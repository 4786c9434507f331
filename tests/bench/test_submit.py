"""Two hundred grid points through the command line and a scheduler that takes every job."""

import pytest

from experiments.bench import submit


@pytest.mark.slow
def test_two_hundred_grid_points_share_what_they_have_in_common() -> None:
    found = submit.main(["grid_points=200"])
    own = 5 * 200  # train, scale, documents, annotate, report
    assert found["n_steps"] == found["n_steps_planned"] == 1 + 3 * 2 + own
    assert found["n_jobs"] == 1 + 3 + own  # both layers of a model are one forward pass
    assert found["n_jobs_again"] == 0


def test_a_grid_that_is_no_multiple_of_four_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4"):
        submit.main(["grid_points=7"])
