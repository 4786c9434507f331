"""Read by every Python that has this folder in PYTHONPATH: SLURM jobs of the tests run the fake stages."""

import fake_stages

fake_stages.install()
