"""Learning rate over the steps of a run."""

from __future__ import annotations

import math

from crossdiff.training.settings import TrainingSettings


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """Rate of optimizer step `step` (from 0): linear warm-up, flat, then linear or cosine decay towards 0.

    Warm-up ends at half of a run that is too short for it.
    """
    n_steps = settings.total_steps()
    warmup = min(settings.warmup_steps, n_steps // 2)
    factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
    n_decay = round(settings.decay_share * n_steps)
    left = (n_steps - step) / n_decay if n_decay else 1.0
    if left >= 1:
        return settings.learning_rate * factor
    match settings.decay:
        case "none":
            return settings.learning_rate * factor
        case "linear":
            return settings.learning_rate * factor * left
        case "cosine":
            return settings.learning_rate * factor * 0.5 * (1 - math.cos(math.pi * left))
