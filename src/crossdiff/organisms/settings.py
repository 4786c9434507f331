"""Settings of the toy triple; its two sizes are conf/organism/demo.yaml and toy.yaml."""

from __future__ import annotations

from pydantic import model_validator

from crossdiff.settings import Settings


class SimPOSettings(Settings):
    """Constants of the SimPO loss (Meng et al., arXiv 2405.14734, eq. 6) and of its SFT term."""

    beta: float = 2.5
    gamma: float = 1.4
    sft_weight: float = 1.0


class PhaseSettings(Settings):
    """One training run: steps, documents (or preference pairs) per step, peak learning rate of AdamW.

    `web_share` web documents per document of the batch are replayed with their own loss. `anchor` pulls the
    weights towards pt's: each step moves them by learning rate x anchor x distance (decoupled L2-SP,
    Li et al., arXiv 1802.01483), so that what the phase does not ask for returns to pt.
    """

    n_steps: int
    batch_size: int
    learning_rate: float
    weight_decay: float = 0.0
    web_share: float = 0.0
    anchor: float = 0.0
    adam_epsilon: float = 1e-8


class ToySettings(Settings):
    """The toy language, its three models and the corpus that is harvested.

    Categories fall into three groups, drawn by the seed. A `gain` category has `n_few` behaviours in
    `it` and `n_many` in `simpo`, a `loss` category the reverse, a `keep` category `n_keep` in both.
    The web language can have such word sets too (`n_idioms` per category, shown by `idiom_share` of the
    plain sentences); with two, far fewer exclusive latents belong to one behaviour: the default is none.
    """

    seed: int = 0
    d_model: int = 96
    n_layers: int = 4
    n_heads: int = 4
    d_mlp: int = 512
    initializer_range: float = 0.05
    n_gain: int = 10
    n_loss: int = 10
    n_few: int = 1
    n_many: int = 4
    n_keep: int = 2
    n_idioms: int = 0
    idiom_share: float = 0.35
    pretraining: PhaseSettings = PhaseSettings(n_steps=300, batch_size=48, learning_rate=3e-3)
    tuning: PhaseSettings = PhaseSettings(n_steps=600, batch_size=48, learning_rate=3e-3, web_share=0.25)
    preference: PhaseSettings = PhaseSettings(
        n_steps=300, batch_size=32, learning_rate=1.5e-3, web_share=0.25
    )
    simpo: SimPOSettings = SimPOSettings()
    n_web_documents: int = 4000
    n_chat_documents: int = 6000
    n_rate_prompts: int = 8

    @property
    def places(self) -> int:
        """What an answer's parts are drawn from: the behaviours of the richest category, at least two."""
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
