import random
from pathlib import Path

import numpy as np
import torch

from crossdiff.training.random_states import random_states, restore_random_states


def draws() -> tuple[list[float], float, float]:
    return torch.rand(3).tolist(), float(np.random.rand()), random.random()  # noqa: NPY002


def test_random_states_are_plain_values_that_bring_every_generator_back(tmp_path: Path) -> None:
    torch.save(random_states(), tmp_path / "states.pt")
    first = draws()
    restore_random_states(torch.load(tmp_path / "states.pt", weights_only=True))
    assert draws() == first
