"""Training a crosscoder: Lightning around core, checkpoints, held-out figures, several devices."""
