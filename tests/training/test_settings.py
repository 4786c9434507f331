import pytest
from pydantic import ValidationError

from crossdiff.training.settings import TrainingSettings


def test_steps_follow_from_tokens_and_batch_size() -> None:
    assert TrainingSettings(n_tokens=200_000_000, batch_size=4096).total_steps() == 48_828
    assert TrainingSettings(n_steps=7).total_steps() == 7


@pytest.mark.parametrize("lengths", [{}, {"n_tokens": 1, "n_steps": 1}])
def test_exactly_one_length_is_given(lengths: dict) -> None:
    with pytest.raises(ValidationError, match="give exactly one"):
        TrainingSettings(**lengths)


def test_parts_divide_the_batch() -> None:
    with pytest.raises(ValidationError, match="does not divide into accumulate=3 parts"):
        TrainingSettings(n_steps=1, batch_size=100, accumulate=3)


@pytest.mark.parametrize("betas", [(1.0, 1.0), (0.9, 1.0), (-0.1, 0.999)])
def test_betas_are_shares_below_one(betas: tuple[float, float]) -> None:
    with pytest.raises(ValidationError, match="betas"):
        TrainingSettings(n_steps=1, betas=betas)


def test_how_often_is_saved_does_not_change_the_identity() -> None:
    first, second = (TrainingSettings(n_steps=1, checkpoint_every=n, checkpoint_minutes=n) for n in (1, 2))
    assert first.identity() == second.identity()
    assert first.identity() != TrainingSettings(n_steps=2).identity()


def rates(decay: str, steps: tuple[int, ...]) -> list[float]:
    settings = TrainingSettings(
        n_steps=100,
        learning_rate=1.0,
        warmup_steps=10,
        decay=decay,
        decay_share=0.2,  # type: ignore[arg-type]
    )
    return [settings.learning_rate_at(step) for step in steps]


def test_the_rate_warms_up_stays_and_falls_linearly() -> None:
    assert rates("linear", (0, 4, 9, 50, 80, 90, 99)) == pytest.approx([0.1, 0.5, 1, 1, 1, 0.5, 0.05])


def test_cosine_decay_is_half_way_at_its_middle_and_ends_near_zero() -> None:
    assert rates("cosine", (80, 90, 99)) == pytest.approx([1, 0.5, 0.00616], abs=1e-4)


def test_without_decay_the_rate_stays() -> None:
    assert rates("none", (50, 99)) == [1, 1]


def test_a_mixed_loss_needs_squares_and_two_models_and_leaves_older_keys_alone() -> None:
    mixed = TrainingSettings(n_steps=1, loss="squared", loss_mix=-0.5)
    mixed.check_models(n_models=2)
    for n_models in (1, 3):
        with pytest.raises(ValueError, match="mixes the errors of two models"):
            mixed.check_models(n_models=n_models)
    with pytest.raises(ValidationError, match=r"add training\.loss=squared"):
        TrainingSettings(n_steps=1, loss_mix=-0.5)
    with pytest.raises(ValidationError, match="loss_mix"):
        TrainingSettings(n_steps=1, loss="squared", loss_mix=0.5)
    assert "loss_mix" not in TrainingSettings(n_steps=1).identity()
    assert "loss_mix" in mixed.identity()
