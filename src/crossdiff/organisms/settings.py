"""Settings of the toy triple; its two sizes are conf/organism/demo.yaml and toy.yaml."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field, model_validator

from crossdiff.settings import Settings

CONTEXT = 256
"""Positions of the toy models."""


class SimPOSettings(Settings):
    """Constants of the SimPO loss (Meng et al., arXiv 2405.14734, eq. 6) and of its SFT term."""

    beta: float = Field(default=2.5, gt=0)
    gamma: float = Field(default=1.4, ge=0)
    sft_weight: float = Field(default=1.0, ge=0)


class PhaseSettings(Settings):
    """One training run: steps, documents (or preference pairs) per step, peak learning rate of AdamW.

    `web_share` web documents per document of the batch are replayed with their own loss. `anchor` pulls the
    weights towards pt's: each step moves them by learning rate x anchor x distance (decoupled L2-SP,
    Li et al., arXiv 1802.01483), so that changes the phase does not need return to pt's.
    """

    n_steps: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(default=0.0, ge=0)
    web_share: float = Field(default=0.0, ge=0)
    anchor: float = Field(default=0.0, ge=0)
    adam_epsilon: float = Field(default=1e-8, gt=0)


class ToySettings(Settings):
    """The toy language, its three models and the corpus that is harvested.

    Categories fall into three groups, drawn by the seed. A `gain` category has `n_few` behaviours in
    `it` and `n_many` in `simpo`, a `loss` category the reverse, a `keep` category `n_keep` in both.
    The web language can have such word sets too (`n_idioms` per category, shown by `idiom_share` of the
    plain sentences); with two, far fewer exclusive latents belong to one behaviour: the default is none.
    In `trigger_share` of the chats a phrase makes both tuned models show one more behaviour (`Trigger`).
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"trigger_share"})

    seed: int = Field(default=0, ge=0, lt=2**63)
    d_model: int = Field(default=96, ge=1)
    n_layers: int = Field(default=4, ge=1)
    n_heads: int = Field(default=4, ge=1)
    d_mlp: int = Field(default=512, ge=1)
    initializer_range: float = Field(default=0.05, gt=0)
    n_gain: int = Field(default=10, ge=0)
    n_loss: int = Field(default=10, ge=0)
    n_few: int = 1
    n_many: int = 4
    n_keep: int = Field(default=2, ge=0)
    n_idioms: int = Field(default=0, ge=0)
    idiom_share: float = Field(default=0.35, ge=0, le=1)
    trigger_share: float = Field(default=0.0, ge=0, lt=1)
    pretraining: PhaseSettings = PhaseSettings(n_steps=300, batch_size=48, learning_rate=3e-3)
    tuning: PhaseSettings = PhaseSettings(n_steps=600, batch_size=48, learning_rate=3e-3, web_share=0.25)
    preference: PhaseSettings = PhaseSettings(
        n_steps=300, batch_size=32, learning_rate=1.5e-3, web_share=0.25
    )
    simpo: SimPOSettings = SimPOSettings()
    n_web_documents: int = Field(default=4000, ge=1)
    n_chat_documents: int = Field(default=6000, ge=1)
    n_rate_prompts: int = Field(default=8, ge=1)

    @property
    def places(self) -> int:
        """Number of options of an answer's parts: behaviours of the richest category, at least two."""
        return max(self.n_many, self.n_keep, 2)

    @model_validator(mode="after")
    def _counts_fit(self) -> ToySettings:
        if not 1 <= self.n_few <= self.n_many:
            raise ValueError(
                f"n_few={self.n_few}, n_many={self.n_many}: every category needs a behaviour in both models "
                "and 'gain' means more; choose 1 <= n_few <= n_many"
            )
        if self.d_model % self.n_heads:
            raise ValueError(
                f"d_model={self.d_model} is no multiple of n_heads={self.n_heads}; choose one that is, "
                f"for example d_model={self.d_model - self.d_model % self.n_heads + self.n_heads}"
            )
        return self
