"""Which latents belong to one model only: norm kinds, the exclusive call, and what each clause rejected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Bool, Float64, Int
from pydantic import Field
from torch import Tensor

from crossdiff.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

Side = Literal["tuned", "base"]
CALLS = ("exclusive", "not_exclusive", "undecided")
NORM_CLAUSES = ("delta_norm", "norm_bin")


class SelectionSettings(Settings):
    """The exclusive call (method.md section 4).

    method
        minder: `|nu_error| < nu_error`, `|nu_reconstruction| < nu_reconstruction` and the norm clause
            (`delta_norm > 0.5` for tuned, `< 0.5` for base), each side with its own direction as the probe.
        norm: `delta_norm` in the outer bins (`kind` base_only or tuned_only).
        both: minder and norm agree.
    certainty
        point: the ratio itself is compared with its threshold.
        interval: its whole 95 % interval is; a latent whose interval straddles a threshold is undecided.
    min_tokens, min_documents
        Below these counts of active tokens and documents a latent is undecided, unless its norms have
        rejected it already. Documents are only counted where they are known.
    """

    method: Literal["minder", "norm", "both"] = "minder"
    nu_error: float = Field(default=0.2, gt=0)
    nu_reconstruction: float = Field(default=0.5, gt=0)
    certainty: Literal["point", "interval"] = "point"
    min_tokens: int = Field(default=50, ge=1)
    min_documents: int = Field(default=10, ge=1)


@dataclass(frozen=True)
class SideEvidence:
    """What the call of one side reads; the probe is that side's own direction, `nu` = other beta / own beta.

    `beta_*`, `beta_*_low` are the own model's beta and the lower end of its interval (NaN: no interval);
    `documents_known` is False when the pass was given no documents, so that intervals cannot exist.
    """

    nu_error: Float64[Tensor, " latent"]
    nu_reconstruction: Float64[Tensor, " latent"]
    nu_error_bounds: Float64[Tensor, "2 latent"]
    nu_reconstruction_bounds: Float64[Tensor, "2 latent"]
    beta_error: Float64[Tensor, " latent"]
    beta_error_low: Float64[Tensor, " latent"]
    beta_reconstruction: Float64[Tensor, " latent"]
    beta_reconstruction_low: Float64[Tensor, " latent"]
    n_active: Int[Tensor, " latent"]
    n_documents: Int[Tensor, " latent"] | None


def clauses(
    side: Side,
    delta_norm: Float64[Tensor, " latent"],
    evidence: SideEvidence,
    settings: SelectionSettings,
) -> tuple[dict[str, Bool[Tensor, " latent"]], dict[str, Bool[Tensor, " latent"]]]:
    """Latents that each clause stops on this side: `(undecided, rejected)`, clause -> mask.

    A clause of the first group leaves the latent undecided, one of the second makes it not exclusive.
    """
    undecided = {"min_tokens": evidence.n_active < settings.min_tokens}
    if evidence.n_documents is not None:
        undecided["min_documents"] = evidence.n_documents < settings.min_documents
    rejected: dict[str, Tensor] = {}
    if settings.method in ("norm", "both"):
        rejected["norm_bin"] = ~(delta_norm >= 0.9 if side == "tuned" else delta_norm <= 0.1)
    if settings.method in ("minder", "both"):
        rejected["delta_norm"] = ~(delta_norm > 0.5 if side == "tuned" else delta_norm < 0.5)
        undecided.update(_own_beta_clauses(evidence))
        for name in ("error", "reconstruction"):
            far, straddles = _ratio_clause(evidence, name, settings)
            rejected[f"nu_{name}"] = far
            if straddles is not None:
                undecided[f"nu_{name}_straddles"] = straddles
    return undecided, rejected


def _own_beta_clauses(evidence: SideEvidence) -> dict[str, Tensor]:
    """The own model's beta has to be clearly positive: above 0, and so its whole interval."""
    found = {}
    for name in ("error", "reconstruction"):
        beta, low = getattr(evidence, f"beta_{name}"), getattr(evidence, f"beta_{name}_low")
        found[f"beta_{name}_not_positive"] = ~(beta > 0)
        if evidence.n_documents is not None:
            found[f"beta_{name}_interval"] = (beta > 0) & ~(low > 0)
    return found


def _ratio_clause(
    evidence: SideEvidence, name: str, settings: SelectionSettings
) -> tuple[Tensor, Tensor | None]:
    limit, ratio = getattr(settings, f"nu_{name}"), getattr(evidence, f"nu_{name}")
    if settings.certainty == "point" or evidence.n_documents is None:
        return ~(ratio.abs() < limit), None
    low, high = getattr(evidence, f"nu_{name}_bounds")
    inside = (low > -limit) & (high < limit)
    outside = (low >= limit) | (high <= -limit)
    return outside, ~inside & ~outside


@dataclass(frozen=True)
class Calls:
    """The call of every latent and what each clause stopped.

    `rejected[side]`: clause -> latents it stopped **first** (in the order printed; with `exclusive` they add
    up to all latents). `failing[side]`: clause -> all latents it holds for, whatever the others say.
    """

    call: list[str]
    exclusive_to: list[str | None]
    rejected: dict[str, dict[str, int]]
    failing: dict[str, dict[str, int]]


def call_latents(
    delta_norm: Float64[Tensor, " latent"],
    sides: Mapping[Side, SideEvidence],
    settings: SelectionSettings,
    *,
    dead: Bool[Tensor, " latent"],
) -> Calls:
    """Exclusive, not_exclusive or undecided, from both sides' evidence.

    A latent is judged on the side its norms name (above one half: tuned, below: base), so at most one side
    can claim it. Undecided wins over not_exclusive only where no other clause has already rejected the latent
    on that side's norms.
    """
    rejected: dict[str, dict[str, int]] = {}
    failing: dict[str, dict[str, int]] = {}
    exclusive: dict[str, Tensor] = {}
    unsure = torch.zeros_like(dead)
    for side, evidence in sides.items():
        unclear, against = clauses(side, delta_norm, evidence, settings)
        rejected[side], failing[side] = _count_stops({"dead": dead, **_in_order(unclear, against)})
        stopped = _any({**unclear, **against}, dead)
        exclusive[side] = ~stopped & ~dead
        here = delta_norm > 0.5 if side == "tuned" else delta_norm <= 0.5
        by_norms = _any({name: against[name] for name in NORM_CLAUSES if name in against}, dead)
        unsure |= here & ~by_norms & _any(unclear, dead)
    call = torch.where(unsure | dead, 2, 1)
    for claimed in exclusive.values():
        call[claimed] = 0
    owner = [next((side for side in exclusive if exclusive[side][j]), None) for j in range(len(call))]
    return Calls([CALLS[i] for i in call.tolist()], owner, rejected, failing)


def _in_order(unclear: dict[str, Tensor], against: dict[str, Tensor]) -> dict[str, Tensor]:
    """The side's norm clause first (it halves the latents), then counts, own betas and ratios."""
    norms = {name: mask for name, mask in against.items() if name in NORM_CLAUSES}
    return {**norms, **unclear, **{name: mask for name, mask in against.items() if name not in norms}}


def _count_stops(stops: dict[str, Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    first, left = {}, torch.ones_like(next(iter(stops.values())))
    for name, mask in stops.items():
        first[name] = int((left & mask).sum())
        left &= ~mask
    return {**first, "exclusive": int(left.sum())}, {name: int(mask.sum()) for name, mask in stops.items()}


def _any(masks: dict[str, Tensor], like: Tensor) -> Tensor:
    found = torch.zeros_like(like)
    for mask in masks.values():
        found |= mask
    return found


def exclusive_latents(table: pd.DataFrame, side: Side) -> list[int]:
    """Latents called exclusive to `side`, ascending."""
    return [j for j, owner in enumerate(table["exclusive_to"]) if owner == side]
