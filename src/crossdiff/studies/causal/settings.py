"""Settings of the causal check."""

from __future__ import annotations

from pydantic import Field

from crossdiff.data.settings import MaskSettings
from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Settings

WHERE = ("all tokens", "first answer tokens")
"""Places whose tokens the figures are over."""


class CausalInputs(Settings):
    """What determines the check, besides the parents (tokens, harvests, train, scale of one pair).

    tuned         the tuned model, whose later blocks read the patched states
    n_documents   documents from all over the corpus
    n_draws       random sets, matched on density and energy
    first         answer tokens of the second place
    """

    layer: int = Field(ge=0)
    tuned: ModelSettings
    mask: MaskSettings = MaskSettings()
    n_documents: int = Field(default=200, ge=2)
    n_draws: int = Field(default=20, ge=1)
    first: int = Field(default=10, ge=1)
    resamples: int = Field(default=2000, ge=100)
    states_at_a_time: int = Field(default=8, ge=1)
    seed: int = 0
