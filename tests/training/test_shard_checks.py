"""What cannot be trained in shards is refused before anything starts, with the way out."""

from __future__ import annotations

import pytest
from hydra.errors import InstantiationException

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, TopK
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.shard_checks import check_shards
from tests.composed import experiment

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
