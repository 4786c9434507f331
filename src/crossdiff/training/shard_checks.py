"""What a training whose dictionary is dealt to several ranks (`training.shards`) asks of its settings."""

from __future__ import annotations

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, Sparsity
from crossdiff.training.settings import TrainingSettings

ALIKE = ("standard", "diff_sae")
"""Architectures whose latents are all of one kind, so that any block of them is a dictionary."""


def check_shards(dictionary: DictionarySettings, sparsity: Sparsity, training: TrainingSettings) -> None:
    """ValueError where `training.shards` is above 1 and something has no sharded form; says what to set."""
    if training.shards == 1:
        return
    asked = f"training.shards={training.shards}"
    if dictionary.architecture not in ALIKE:
        raise ValueError(
            f"{asked} deals out latents that are all alike, and in dictionary.architecture="
            f"{dictionary.architecture} they differ by their number; choose one of {', '.join(ALIKE)}, or "
            "training.shards=1"
        )
    if type(sparsity) is not BatchTopK or training.step == "dense":
        what = "training.step=dense" if training.step == "dense" else f"sparsity {type(sparsity).__name__}"
        raise ValueError(
            f"{asked} works with the sparse step of batch_topk, not with {what}; choose "
            "sparsity=batch_topk training.step=auto, or training.shards=1"
        )
    if training.optimizer == "adam_8bit":
        raise ValueError(
            f"{asked} clips by the norm over all shards, which training.optimizer=adam_8bit does not know; "
            "choose training.optimizer=adam, or training.shards=1"
        )
    rest = dictionary.n_latents % training.shards
    if rest:
        raise ValueError(
            f"dictionary.n_latents={dictionary.n_latents} does not divide into {asked} equal blocks; give "
            f"n_latents={dictionary.n_latents - rest + training.shards}, or other shards"
        )
