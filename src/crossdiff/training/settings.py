"""How a crosscoder is trained, and what training in shards asks of the settings."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, Sparsity
from crossdiff.settings import Settings

Beta = Annotated[float, Field(ge=0, lt=1)]
"""Share of a moment that Adam keeps from one step to the next."""


class TrainingSettings(Settings):
    """Length, optimiser, loss and bookkeeping of one training run.

    Give either `n_tokens` (tokens seen, epochs included) or `n_steps`. Step counts are optimizer steps.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"checkpoint_every", "checkpoint_minutes", "devices", "shards", "members", "start"}
    )
    ADDED: ClassVar[frozenset[str]] = frozenset({"loss_mix", "frozen_decoder", "order_seed"})

    n_tokens: int | None = Field(default=None, ge=1)
    n_steps: int | None = Field(default=None, ge=1)
    batch_size: int = Field(default=2048, ge=1)
    """Tokens per optimizer step."""
    accumulate: int = Field(default=1, ge=1)
    """Parts a batch is worked off in to save memory; batch top-k is then taken over each part."""
    learning_rate: float = Field(default=1e-4, gt=0)
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    warmup_steps: int = Field(default=1000, ge=0)
    decay: Literal["none", "linear", "cosine"] = "linear"
    decay_share: float = Field(default=0.2, ge=0, le=1)
    """Last share of the steps, over which the learning rate falls to 0."""
    clip_norm: float = Field(default=1.0, gt=0)
    loss: Literal["norm", "squared"] = "norm"
    loss_mix: float = Field(default=0.0, ge=-1, le=0)
    """Weight of the inner product of the models' errors in `loss=squared` (`core.dense.reconstruction_loss`):
    0 is the crosscoder's loss, -1 that of the difference alone."""
    frozen_decoder: bool = False
    """Decoder directions stay what they were at the start (a null: arXiv 2602.14111); the rest trains."""
    auxiliary: float = Field(default=1 / 32, ge=0)
    """Weight of AuxK; 0 switches it off."""
    auxiliary_k: int | None = Field(default=None, ge=1)
    """Dead latents per token in AuxK; half of d_model unless given."""
    dead_after_tokens: int = Field(default=10_000_000, ge=1)
    """A latent that has not fired for this many tokens counts as dead."""
    target_rms: float | None = Field(default=None, gt=0)
    """RMS norm of normalised activations per model; sqrt(d_model) unless given."""
    decoder_bias: Literal["geometric_median", "mean", "zero"] = "geometric_median"
    """What the decoder bias starts from, over the first batch."""
    threshold_decay: float = Field(default=0.999, gt=0, lt=1)
    threshold_batches: int = Field(default=50, ge=1)
    """Fresh training batches at the end from which the threshold is estimated."""
    step: Literal["auto", "sparse", "dense"] = "auto"
    """auto is sparse for batch_topk and dense for the rest; dense is the slow oracle."""
    precision: Literal["fp32", "bf16"] = "fp32"
    """Of the encoder product (sparse, re-scored exactly) or the forward pass (dense); state is float32."""
    optimizer: Literal["adam", "lazy_adam", "adam_8bit"] = "adam"
    """adam_8bit keeps moments in 8 bits (bitsandbytes, GPU); lazy_adam leaves latents whose gradient is 0
    alone: it trains differently and is never the default."""
    validate_every: int = Field(default=500, ge=1)
    validate_tokens: int = Field(default=50_000, ge=1)
    """Held-out tokens looked at during training, always the same; the final figures use all of them."""
    log_every: int = Field(default=50, ge=1)
    checkpoint_every: int = Field(default=500, ge=1)
    checkpoint_minutes: float = Field(default=0, ge=0)
    """A checkpoint that its step makes due is left out until this time since the last one has passed."""
    devices: int = Field(default=1, ge=1)
    """Processes, on one node or several, that share every batch, one per GPU (or on CPU)."""
    shards: int = Field(default=1, ge=1)
    """Blocks of latents, each held and trained by a process of its own, one per GPU (or on CPU), on one node
    or several: for a dictionary that one device cannot hold."""
    members: int = Field(default=1, ge=1)
    """How many crosscoders of one pair that differ in their seed alone are trained at a time, on one device
    and from one reader (`training.members`)."""
    order_seed: int | None = None
    """Seed of the order of training rows, the run's own unless given; members of one order share batches."""

    start: str | None = None
    """File, folder or hub id of a crosscoder from whose weights training goes on; its content is in the key
    (`TrainInputs.start`)."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainingSettings:
        if (self.n_tokens is None) == (self.n_steps is None):
            given = "neither" if self.n_tokens is None else "both"
            raise ValueError(f"{given} of training.n_tokens and training.n_steps given; give exactly one")
        if self.batch_size % self.accumulate:
            raise ValueError(
                f"training.batch_size={self.batch_size} does not divide into accumulate={self.accumulate} "
                "parts; choose a multiple"
            )
        return self

    @model_validator(mode="after")
    def _members_share_one_device(self) -> TrainingSettings:
        for name, several in (("devices", "shares each batch"), ("shards", "deals out the latents")):
            if self.members > 1 and getattr(self, name) > 1:
                raise ValueError(
                    f"training.members={self.members} are trained on one device, training.{name}="
                    f"{getattr(self, name)} {several} over several; give one of them (dispatch.processes=N "
                    "spreads groups of members over several GPUs)"
                )
        return self

    @model_validator(mode="after")
    def _mix_needs_squares(self) -> TrainingSettings:
        if self.loss_mix and self.loss != "squared":
            raise ValueError(
                f"training.loss_mix={self.loss_mix:g} mixes squared errors and training.loss={self.loss}; "
                "add training.loss=squared"
            )
        return self

    def n_ranks(self) -> int:
        """Processes of one training: `devices` parts of the batch times `shards` blocks of latents."""
        return self.devices * self.shards

    def check_models(self, *, n_models: int) -> None:
        """ValueError where `loss_mix` is set and there are not two models whose errors it could mix."""
        if self.loss_mix and n_models != 2:
            raise ValueError(
                f"training.loss_mix={self.loss_mix:g} mixes the errors of two models, and this dictionary "
                f"has {n_models} on its model axis; set training.loss_mix=0, or train a pair's crosscoder"
            )

    def order(self, seed: int) -> int:
        """Seed of the order of training rows in a run whose own seed is `seed`."""
        return seed if self.order_seed is None else self.order_seed

    def total_steps(self) -> int:
        """Optimizer steps of the whole run."""
        if self.n_steps is not None:
            return self.n_steps
        assert self.n_tokens is not None
        return max(1, self.n_tokens // self.batch_size)

    def learning_rate_at(self, step: int) -> float:
        """Rate of optimizer step `step` (from 0): linear warm-up, flat, linear or cosine decay towards 0.

        Warm-up ends at half of a run that is too short for it. Its step s of W has (s + 1) / W of the rate,
        one step ahead of trainers that have s / W and do not move at step 0.
        """
        n_steps = self.total_steps()
        warmup = min(self.warmup_steps, n_steps // 2)
        factor = min(1.0, (step + 1) / warmup) if warmup else 1.0
        n_decay = round(self.decay_share * n_steps)
        left = (n_steps - step) / n_decay if n_decay else 1.0
        if left >= 1:
            return self.learning_rate * factor
        match self.decay:
            case "none":
                return self.learning_rate * factor
            case "linear":
                return self.learning_rate * factor * left
            case "cosine":
                return self.learning_rate * factor * 0.5 * (1 - math.cos(math.pi * left))


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
