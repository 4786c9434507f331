"""Where steps run: here, or as a SLURM job graph."""
