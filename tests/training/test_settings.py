import pytest
from hydra.errors import InstantiationException
from pydantic import ValidationError

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, TopK
from crossdiff.training.settings import TrainingSettings, check_shards
from tests.composed import experiment


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


PLAIN = DictionarySettings(n_latents=12)


def settings(**given) -> TrainingSettings:
    return TrainingSettings(n_steps=3, batch_size=8, **{"shards": 3, **given})


def test_blocks_that_divide_are_fine() -> None:
    check_shards(PLAIN, BatchTopK(k=2), settings())
    check_shards(PLAIN, TopK(k=2), settings(shards=1))
    check_shards(DictionarySettings(n_latents=12, architecture="diff_sae"), BatchTopK(k=2), settings())


def test_blocks_that_do_not_divide_are_refused_with_the_next_size() -> None:
    with pytest.raises(
        ValueError, match=r"n_latents=12 does not divide into training.shards=5 .* n_latents=15"
    ):
        check_shards(PLAIN, BatchTopK(k=2), settings(shards=5))


@pytest.mark.parametrize("architecture", ["designated_shared", "dedicated_feature", "dedicated", "delta"])
def test_architectures_whose_latents_differ_are_refused(architecture) -> None:
    with pytest.raises(ValueError, match=f"architecture={architecture} they differ.*training.shards=1"):
        check_shards(DictionarySettings(n_latents=12, architecture=architecture), BatchTopK(k=2), settings())


def test_other_steps_and_optimizers_are_refused() -> None:
    with pytest.raises(ValueError, match=r"not with sparsity TopK; choose sparsity=batch_topk"):
        check_shards(PLAIN, TopK(k=2), settings())
    with pytest.raises(ValueError, match=r"not with training.step=dense"):
        check_shards(PLAIN, BatchTopK(k=2), settings(step="dense"))
    with pytest.raises(ValueError, match=r"choose training.optimizer=adam"):
        check_shards(PLAIN, BatchTopK(k=2), settings(optimizer="adam_8bit"))
    with pytest.raises(ValueError, match=r"training.shards=2 deals out the latents over several"):
        settings(members=2, shards=2)


def test_the_command_line_is_refused_before_a_step_runs() -> None:
    with pytest.raises(InstantiationException, match="does not divide into training.shards=7"):
        experiment("experiment=demo", "training.shards=7")


def test_shards_leave_the_key_alone() -> None:
    assert settings().identity() == settings(shards=1).identity()
