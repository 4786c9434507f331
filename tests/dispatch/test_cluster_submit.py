"""The submission benchmark on a real SLURM: nothing that it submits may start."""

from __future__ import annotations

import pytest

from crossdiff.bench import submit

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]


@pytest.mark.usefixtures("cluster_only")
def test_a_real_scheduler_holds_every_job_until_it_is_cancelled() -> None:
    found = submit.main(["grid_points=4", "scheduler=real"])
    assert found["n_jobs"] == found["n_jobs_cancelled"] > 20
    assert found["n_jobs_again"] == 0
