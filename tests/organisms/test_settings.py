import pytest
from pydantic import ValidationError

from crossdiff.organisms.settings import PhaseSettings, SimPOSettings, ToySettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_steps": -5}, {"n_steps": 0}, {"batch_size": 0}, {"learning_rate": 0.0}, {"web_share": -0.1},
        {"anchor": -1.0}, {"adam_epsilon": 0.0}, {"weight_decay": -1.0},
    ],
)  # fmt: skip
def test_a_phase_that_cannot_run_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        PhaseSettings(**{"n_steps": 1, "batch_size": 1, "learning_rate": 1e-3, **wrong})


@pytest.mark.parametrize(
    "wrong",
    [
        {"n_layers": 0}, {"n_heads": 0}, {"d_model": 0}, {"d_mlp": 0}, {"n_web_documents": 0},
        {"n_chat_documents": -1}, {"n_rate_prompts": 0}, {"n_gain": -1}, {"idiom_share": 1.5}, {"seed": -1},
    ],
)  # fmt: skip
def test_a_toy_that_cannot_be_made_is_refused(wrong: dict) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        ToySettings(**wrong)


def test_the_constants_of_simpo_are_positive() -> None:
    with pytest.raises(ValidationError, match="beta"):
        SimPOSettings(beta=0)
