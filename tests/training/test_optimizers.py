import pytest

from crossdiff.training.optimizers import learning_rate
from crossdiff.training.settings import TrainingSettings


def rates(decay: str, steps: tuple[int, ...]) -> list[float]:
    settings = TrainingSettings(
        n_steps=100,
        learning_rate=1.0,
        warmup_steps=10,
        decay=decay,
        decay_share=0.2,  # type: ignore[arg-type]
    )
    return [learning_rate(settings, step) for step in steps]


def test_the_rate_warms_up_stays_and_falls_linearly() -> None:
    assert rates("linear", (0, 4, 9, 50, 80, 90, 99)) == pytest.approx([0.1, 0.5, 1, 1, 1, 0.5, 0.05])


def test_cosine_decay_is_half_way_at_its_middle_and_ends_near_zero() -> None:
    assert rates("cosine", (80, 90, 99)) == pytest.approx([1, 0.5, 0.00616], abs=1e-4)


def test_without_decay_the_rate_stays() -> None:
    assert rates("none", (50, 99)) == [1, 1]
