"""Which latents belong to one model only: norm kinds, the exclusive call, and what its clauses stop.

All limits of the rule are here. Only the call imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from crossdiff.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Bool, Float64, Int
    from torch import Tensor

    from crossdiff.core.codes import PerLatent

EQUAL_NORMS = 0.5
"""`delta_norm` of a latent whose two directions have equal norms."""
NORM_BINS = {"base_only": (0.0, 0.1), "shared": (0.4, 0.6), "tuned_only": (0.9, 1.0)}
"""Kind -> range of `delta_norm`, ends included (method.md section 3); `other` lies between."""
NORM_EDGES = (NORM_BINS["base_only"][1], *NORM_BINS["shared"], NORM_BINS["tuned_only"][0])
KINDS = ("base_only", "tuned_only", "shared", "other", "dead")
NU_ERROR, NU_RECONSTRUCTION = 0.2, 0.5
"""Default limits of |nu| (method.md section 4)."""

Side = Literal["tuned", "base"]
CALLS = ("exclusive", "not_exclusive", "undecided")
NORM_CLAUSES = ("delta_norm", "norm_bin")


class SelectionSettings(Settings):
    """The exclusive call (method.md section 4).

    method
        minder: `|nu_error| < nu_error`, `|nu_reconstruction| < nu_reconstruction` and the norm clause
            (`delta_norm > 0.5` for tuned, `< 0.5` for base), each side with its own direction as the probe.
            `nu_activation` adds `|nu_activation| < nu_activation`, which Minder et al. do not have: a weak
            copy in the other model may be split between reconstruction and error, each below its limit.
        norm: `delta_norm` in the outer bins (`kind` base_only or tuned_only).
        both: minder and norm agree.
    certainty
        point: the ratio is compared with its threshold.
        interval: its 95 % interval is; a latent whose interval straddles a threshold is undecided.
    min_tokens, min_documents
        Least counts of active tokens and documents; with fewer a latent is undecided, unless its norms
        reject it. Where documents are unknown, no latent has enough.
    """

    method: Literal["minder", "norm", "both"] = "minder"
    nu_error: float = Field(default=NU_ERROR, gt=0)
    nu_reconstruction: float = Field(default=NU_RECONSTRUCTION, gt=0)
    certainty: Literal["point", "interval"] = "point"
    min_tokens: int = Field(default=50, ge=1)
    min_documents: int = Field(default=10, ge=1)
    nu_activation: float | None = Field(default=None, gt=0)

    ADDED: ClassVar[frozenset[str]] = frozenset({"nu_activation"})

    def targets(self) -> tuple[str, ...]:
        """Targets of latent scaling whose ratios the call reads."""
        return ("error", "reconstruction", *(() if self.nu_activation is None else ("activation",)))


@dataclass(frozen=True)
class SideEvidence:
    """The figures of one side's call; the probe is that side's direction, `nu` = other beta / own beta.

    `beta_*`, `beta_*_low` are the side's own beta and the lower end of its interval (NaN: no interval).
    Without documents `n_documents` is None, `min_documents` cannot be met, so no latent can be exclusive, and
    there are no intervals.
    """

    nu_error: Float64[Tensor, " latent"]
    nu_reconstruction: Float64[Tensor, " latent"]
    nu_activation: Float64[Tensor, " latent"]
    nu_error_bounds: Float64[Tensor, "2 latent"]
    nu_reconstruction_bounds: Float64[Tensor, "2 latent"]
    nu_activation_bounds: Float64[Tensor, "2 latent"]
    beta_error: Float64[Tensor, " latent"]
    beta_error_low: Float64[Tensor, " latent"]
    beta_reconstruction: Float64[Tensor, " latent"]
    beta_reconstruction_low: Float64[Tensor, " latent"]
    beta_activation: Float64[Tensor, " latent"]
    beta_activation_low: Float64[Tensor, " latent"]
    n_active: Int[Tensor, " latent"]
    n_documents: Int[Tensor, " latent"] | None


def in_bin(delta_norm: PerLatent, kind: str) -> Bool[Tensor, " latent"]:
    """Latents with `delta_norm` in the bin of `kind`, ends included; NaN is in no bin."""
    low, high = NORM_BINS[kind]
    return (delta_norm >= low) & (delta_norm <= high)


def kinds(delta_norm: PerLatent, *, alive: Bool[Tensor, " latent"]) -> list[str]:
    """Kind of every latent by its bin; `other` outside the bins, `dead` where it never fired."""
    names = ["other"] * len(delta_norm)
    for kind in NORM_BINS:
        for latent in in_bin(delta_norm, kind).nonzero().flatten().tolist():
            names[latent] = kind
    return [name if lives else "dead" for name, lives in zip(names, alive.tolist(), strict=True)]


def clauses(
    side: Side,
    delta_norm: Float64[Tensor, " latent"],
    evidence: SideEvidence,
    settings: SelectionSettings,
) -> tuple[dict[str, Bool[Tensor, " latent"]], dict[str, Bool[Tensor, " latent"]]]:
    """`(undecided, rejected)`: clause -> mask of the latents that it stops on this side.

    Clauses of the first group leave a latent undecided, those of the second make it not exclusive.
    """
    undecided = {"min_tokens": evidence.n_active < settings.min_tokens}
    if evidence.n_documents is None:
        undecided["min_documents"] = evidence.n_active >= 0  # all latents: the count is unknown
    else:
        undecided["min_documents"] = evidence.n_documents < settings.min_documents
    rejected: dict[str, Tensor] = {}
    if settings.method in ("norm", "both"):
        rejected["norm_bin"] = ~in_bin(delta_norm, f"{side}_only")
    if settings.method in ("minder", "both"):
        rejected["delta_norm"] = ~(delta_norm > EQUAL_NORMS if side == "tuned" else delta_norm < EQUAL_NORMS)
        undecided.update(_own_beta_clauses(evidence, settings.targets()))
        for name in settings.targets():
            far, straddles = _ratio_clause(evidence, name, settings)
            rejected[f"nu_{name}"] = far
            if straddles is not None:
                undecided[f"nu_{name}_straddles"] = straddles
    return undecided, rejected


def _own_beta_clauses(evidence: SideEvidence, targets: tuple[str, ...]) -> dict[str, Tensor]:
    """Clauses on the side's own beta, which must be above 0 with its whole interval."""
    stopped = {}
    for name in targets:
        beta, low = getattr(evidence, f"beta_{name}"), getattr(evidence, f"beta_{name}_low")
        stopped[f"beta_{name}_not_positive"] = ~(beta > 0)
        if evidence.n_documents is not None:
            stopped[f"beta_{name}_interval"] = (beta > 0) & ~(low > 0)
    return stopped


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
    """The call of every latent, and counts of what each clause stopped.

    `rejected[side]`: clause -> latents it stopped **first**, in order (with `exclusive` they add
    up to all latents). `failing[side]`: clause -> all latents it stops.
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

    A latent is judged on the side of its norms (above one half: tuned, below: base), so at most one side
    can claim it. Undecided wins over not_exclusive unless the side's norm clause rejects the latent.
    """
    import torch

    rejected: dict[str, dict[str, int]] = {}
    failing: dict[str, dict[str, int]] = {}
    exclusive: dict[str, Tensor] = {}
    unsure = torch.zeros_like(dead)
    for side, evidence in sides.items():
        unclear, against = clauses(side, delta_norm, evidence, settings)
        rejected[side], failing[side] = _count_stops({"dead": dead, **_in_order(unclear, against)})
        stopped = _any({**unclear, **against}, dead)
        exclusive[side] = ~stopped & ~dead
        here = delta_norm > EQUAL_NORMS if side == "tuned" else delta_norm <= EQUAL_NORMS
        by_norms = _any({name: against[name] for name in NORM_CLAUSES if name in against}, dead)
        unsure |= here & ~by_norms & _any(unclear, dead)
    call = torch.where(unsure | dead, 2, 1)
    for claimed in exclusive.values():
        call[claimed] = 0
    owner = [next((side for side in exclusive if exclusive[side][j]), None) for j in range(len(call))]
    return Calls([CALLS[i] for i in call.tolist()], owner, rejected, failing)


def _in_order(unclear: dict[str, Tensor], against: dict[str, Tensor]) -> dict[str, Tensor]:
    """The clauses in order: norms (which halve the latents), counts, own betas, ratios."""
    norms = {name: mask for name, mask in against.items() if name in NORM_CLAUSES}
    return {**norms, **unclear, **{name: mask for name, mask in against.items() if name not in norms}}


def _count_stops(stops: dict[str, Tensor]) -> tuple[dict[str, int], dict[str, int]]:
    import torch

    first, left = {}, torch.ones_like(next(iter(stops.values())))
    for name, mask in stops.items():
        first[name] = int((left & mask).sum())
        left &= ~mask
    return {**first, "exclusive": int(left.sum())}, {name: int(mask.sum()) for name, mask in stops.items()}


def _any(masks: dict[str, Tensor], like: Tensor) -> Tensor:
    union = like.new_zeros(like.shape)
    for mask in masks.values():
        union |= mask
    return union


def exclusive_latents(table: pd.DataFrame, side: Side) -> list[int]:
    """Latents called exclusive to `side`, ascending."""
    return [j for j, owner in enumerate(table["exclusive_to"]) if owner == side]
