"""Settings of the planted activations."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

from crossdiff.settings import Settings

PlantedKind = Literal["shared", "rotated", "base_only", "tuned_only", "shrunken", "decoupled"]
KINDS: tuple[PlantedKind, ...] = ("shared", "rotated", "base_only", "tuned_only", "shrunken", "decoupled")
HARD: dict[str, Any] = {
    "d_model": 48, "n_shared": 170, "n_rotated": 20, "n_base_only": 20, "n_tuned_only": 50, "n_shrunken": 20,
    "n_decoupled": 20, "frequencies": (0.05, 0.03, 0.02, 0.01, 0.005, 0.003, 0.002, 0.001),
    "shrunken_ratio": 0.3, "document_share": 0.1, "strength_spread": 0.8, "parent_share": 0.5,
    "scales": (1.0, 8.0),
}  # fmt: skip
"""300 latents in 48 dimensions, uneven codes, half of the rarer ones under a parent, bursty documents."""


class PlantedSettings(Settings):
    """Latents per kind, their frequencies, and the noise and similarity of tokens.

    shared      one direction, equal norm in both models
    rotated     both models, directions at cosine `rotation_cosine`
    base_only, tuned_only   norm 0 in the other model
    shrunken    one direction, norm in the base model `shrunken_ratio` of that in the tuned
    decoupled   one direction in both models, but the base model also uses it at other tokens, so that a
                dictionary may give the tuned model a latent of its own for it
    Every kind has every frequency of `frequencies` (share of tokens) equally often. `world` chooses the
    defaults of all other settings: `plain` those below, `hard` those of `HARD`.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"world"})
    ADDED: ClassVar[frozenset[str]] = frozenset({"strength_spread", "parent_share"})

    world: Literal["plain", "hard"] = "plain"
    d_model: int = Field(default=64, ge=2)
    n_shared: int = Field(default=160, ge=0)
    n_rotated: int = Field(default=16, ge=0)
    n_base_only: int = Field(default=16, ge=0)
    n_tuned_only: int = Field(default=32, ge=0)
    n_shrunken: int = Field(default=16, ge=0)
    n_decoupled: int = Field(default=16, ge=0)
    frequencies: tuple[float, ...] = (0.05, 0.02, 0.01, 0.005)
    rotation_cosine: float = Field(default=0.5, gt=-1, lt=1)
    shrunken_ratio: float = Field(default=0.4, gt=0, lt=1)
    document_share: float = Field(default=0.25, gt=0, le=1)
    """Share of documents in which a latent can fire, at its frequency over this share."""
    correlated_share: float = Field(default=0.5, ge=0, le=1)
    """Share of latents in pairs, whose partner fires at half of their tokens."""
    gain_spread: float = Field(default=0.3, ge=0)
    offset: float = Field(default=0.05, ge=0)
    noise: float = Field(default=0.05, ge=0)
    document_length: int = Field(default=64, ge=1)
    scales: tuple[float, float] = (1.0, 3.0)
    strength_spread: float = Field(default=0.4, ge=0)
    """Standard deviation of the logarithm of a code."""
    parent_share: float = Field(default=0.0, ge=0, le=1)
    """Share of latents (the most frequent aside) that fire only where a more frequent one fires."""

    @model_validator(mode="before")
    @classmethod
    def _of_world(cls, given: Any) -> Any:
        hard = isinstance(given, dict) and given.get("world") == "hard"
        return {**HARD, **given} if hard else given

    def counts(self) -> dict[PlantedKind, int]:
        """Latents per kind."""
        return {kind: getattr(self, f"n_{kind}") for kind in KINDS}
