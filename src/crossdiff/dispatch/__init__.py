"""Running steps: in this process, or as a SLURM job graph."""
