"""Diagnostics of one crosscoder for the report (method.md section 5), with sentences."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64, Int
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.codes import Directions
from crossdiff.core.exclusive_call import (
    NORM_BINS,
    NORM_EDGES,
    Calls,
    SelectionSettings,
    exclusive_latents,
    in_bin,
)
from crossdiff.core.latent_table import BASE, TUNED, Scaled, pair_table

if TYPE_CHECKING:
    import pandas as pd

TWIN_COSINE = 0.9
MIDDLE = (0.3, 0.6)
"""Range of `delta_norm` in which a pair that differs too little lies (method.md section 5)."""
LEAST_REACH = 5
"""Least sum of the learning rates times sqrt(d_model), over a direction's first norm: Adam moves a weight by
at most about its rate, and by much less where gradients change sign."""
LEAST_SHARED = 0.1
"""Share of alive latents in the shared bin below which a pair is too distant."""
TEMPLATE_SHARE = 0.5
_LOW, _HIGH = NORM_EDGES[0], NORM_EDGES[-1]
DENSITY_BINS = [-8 + 0.25 * i for i in range(33)]


def diagnose(
    table: pd.DataFrame,
    scaled: Scaled,
    calls: Calls,
    *,
    decoder: Directions,
    selection: SelectionSettings,
    reach: float | None = None,
) -> dict[str, Any]:
    """All diagnostics as JSON-able values; None where undefined."""
    alive = ~scaled.dead.cpu()
    delta_norm, density = (values(table, name)[alive] for name in ("delta_norm", "density"))
    fit = scaled.sums.fit
    return {
        "version": 1,
        "n_latents": len(table),
        "n_alive": int(alive.sum()),
        "dead_share": 1 - float(alive.double().mean()),
        "n_tokens": scaled.sums.n_tokens,
        "fve": None if fit is None else _per_model(fit.explained()),
        "fve_without_first": None if fit is None else _per_model(fit.explained_without_first()),
        "l0": None if fit is None else fit.l0(),
        "kinds": Counter(table["kind"]),
        "calls": Counter(table["call"]),
        "n_exclusive": {side: len(exclusive_latents(table, side)) for side in ("tuned", "base")},
        "rejected": calls.rejected,
        "failing": calls.failing,
        "delta_norm": {
            "edges": [i / 50 for i in range(51)],
            "counts": _unit_histogram(delta_norm, bins=50),
        },
        "log10_density": {"edges": DENSITY_BINS, "counts": _density_histogram(density)},
        "signature": signature(delta_norm, reach=reach),
        **({} if scaled.one_space else {"two_families": True}),
        "twins": twins(table, decoder) if scaled.one_space else None,
        **shrinkage_and_decoupling(table, selection, known=scaled.one_space),
        "template": template_energy(table, scaled),
        "split_half": split_half(scaled, decoder, selection),
    }


def _per_model(fve: list[float]) -> dict[str, float | None]:
    known = (None if math.isnan(value) else value for value in fve)
    return dict(zip(("base", "tuned"), known, strict=True))


def signature(delta_norm: Float64[Tensor, " alive"], *, reach: float | None = None) -> dict[str, Any]:
    """How far apart the pair is, from its alive latents, with a sentence where that is a failure.

    Too similar: no alive latent in the outer bins and at least half of them in `MIDDLE`. All latents start in
    `MIDDLE`, so the training must be long enough to leave it: `reach` is how far a decoder direction could
    move, in its first norms, if all steps had one sign (None: unknown). Too distant: under `LEAST_SHARED` of
    them in the shared bin.
    """
    if len(delta_norm) == 0:
        return {
            "verdict": "no_alive_latent",
            "sentence": "No latent was ever active: there is nothing to compare.",
        }
    below, above = beyond_outer(delta_norm)
    outer, middle = below + above, middle_share(delta_norm)
    shared = float(in_bin(delta_norm, "shared").double().mean())
    figures = {"outer_count": outer, "middle_share": middle, "shared_share": shared}
    stuck = outer == 0 and middle >= 0.5
    if stuck and reach is not None and reach < LEAST_REACH:
        return {"verdict": "trained_too_short", "sentence": _too_short(reach), **figures}
    if stuck:
        sentence = (
            f"This pair is too similar: no alive latent has delta_norm below {_LOW} or above {_HIGH}, and "
            f"{middle:.0%} lie in {MIDDLE[0]}-{MIDDLE[1]}, so norms cannot say which model a latent "
            "belongs to. If both come from one earlier base, diff each against that instead."
        )
        return {"verdict": "too_similar", "sentence": sentence, **figures}
    if shared < LEAST_SHARED:
        sentence = (
            f"This pair is too distant: only {shared:.0%} of the alive latents lie in "
            f"{NORM_BINS['shared'][0]}-{NORM_BINS['shared'][1]}, so the two models hardly share "
            "a dictionary and most latents look exclusive. Train longer first (training.n_steps), since "
            "a latent may not have found its place in both models yet; if it stays so, give two models that "
            "come from one base, and read the counts of exclusive latents as an upper bound."
        )
        return {"verdict": "too_distant", "sentence": sentence, **figures}
    return {"verdict": "ordinary", "sentence": None, **figures}


def _too_short(reach: float) -> str:
    return (
        f"This crosscoder was trained too short to tell the models apart: its steps could carry a decoder "
        f"direction {reach:.2g} times the norm it started with, where {LEAST_REACH} are the least, so that "
        "delta_norm of all latents still lies about one half. Raise training.n_steps (or training.n_tokens) "
        f"about {max(2, math.ceil(2 * LEAST_REACH / reach))}-fold before judging how similar the pair is."
    )


def beyond_outer(delta_norm: Float64[Tensor, " alive"]) -> tuple[int, int]:
    """Number of latents in the outer norm bins, base-only and tuned-only."""
    return int((delta_norm < _LOW).sum()), int((delta_norm > _HIGH).sum())


def middle_share(delta_norm: Float64[Tensor, " alive"]) -> float:
    """Share of latents with `delta_norm` in `MIDDLE`; NaN without latents."""
    return float(((delta_norm >= MIDDLE[0]) & (delta_norm <= MIDDLE[1])).double().mean())


def twins(table: pd.DataFrame, decoder: Directions) -> dict[str, Any]:
    """Base-only and tuned-only latents with directions of cosine above 0.9: one concept, counted twice."""
    base, tuned = of_kind(table, "base_only"), of_kind(table, "tuned_only")
    pairs: list[dict[str, Any]] = []
    if len(base) and len(tuned):
        base_directions = normalize(decoder[base, BASE], dim=-1)
        for start in range(0, len(tuned), 1024):
            part = tuned[start : start + 1024]
            cosine = normalize(decoder[part, TUNED], dim=-1) @ base_directions.T
            for i, j in (cosine > TWIN_COSINE).nonzero().tolist():
                pairs.append(
                    {"tuned": int(part[i]), "base": int(base[j]), "cosine": round(float(cosine[i, j]), 4)}
                )
    return {"n": len(pairs), "pairs": pairs[:100]}


def shrinkage_and_decoupling(
    table: pd.DataFrame, selection: SelectionSettings, *, known: bool = True
) -> dict[str, Any]:
    """Counts of latents that are exclusive by norms but present in the other model.

    Complete shrinkage: high `|nu_error|`, the other model's error contains the latent.
    Latent decoupling: high `|nu_reconstruction|`, other directions of the other model reconstruct it.
    None where the ratios are not `known`.
    """
    counts: dict[str, Any] = {"shrinkage": {}, "decoupling": {}, "by_norm": {}}
    for side, kind, suffix in (("tuned", "tuned_only", ""), ("base", "base_only", "_baseprobe")):
        rows = of_kind(table, kind)
        nu_error, nu_reconstruction = (
            values(table, f"nu_{target}{suffix}")[rows].abs() for target in ("error", "reconstruction")
        )
        counts["by_norm"][side] = len(rows)
        shrunken = int((nu_error >= selection.nu_error).sum())
        decoupled = int((nu_reconstruction >= selection.nu_reconstruction).sum())
        counts["shrinkage"][side] = shrunken if known else None
        counts["decoupling"][side] = decoupled if known else None
    return counts


def template_energy(table: pd.DataFrame, scaled: Scaled) -> dict[str, Any]:
    """Share of each exclusive latent's energy (sum of squared codes) on chat template tokens.

    Empty where template tokens are unknown.
    """
    if bool(scaled.sums.template_energy.isnan().any()):
        return {}
    share = scaled.sums.template_energy / scaled.sums.energy.sum(dim=0)
    energies: dict[str, Any] = {}
    for side in ("tuned", "base"):
        latents = exclusive_latents(table, side)
        shares = {str(j): round(float(share[j]), 4) for j in latents}
        mainly = sum(value > TEMPLATE_SHARE for value in shares.values())
        energies[side] = {
            "mainly_template": mainly,
            "share": mainly / len(latents) if latents else None,
            "energy": shares,
        }
    return energies


def split_half(scaled: Scaled, decoder: Directions, selection: SelectionSettings) -> dict[str, Any] | None:
    """Jaccard overlap, per side, of the exclusive sets of two halves of the documents; None without any."""
    if scaled.bounds is None:
        return None
    halves = [Scaled.of(decoder, scaled.sums.half(which), one_space=scaled.one_space) for which in (0, 1)]
    tables = [pair_table(half, half.calls(selection)) for half in halves]
    overlaps = {}
    for side in ("tuned", "base"):
        first, second = (set(exclusive_latents(half, side)) for half in tables)
        union = len(first | second)
        jaccard = len(first & second) / union if union else None
        overlaps[side] = {
            "first": len(first),
            "second": len(second),
            "both": len(first & second),
            "jaccard": jaccard,
        }
    return overlaps


def values(table: pd.DataFrame, name: str) -> Float64[Tensor, " latent"]:
    """A column of the latent table as a tensor."""
    return torch.tensor(table[name].to_numpy(dtype="float64"))


def of_kind(table: pd.DataFrame, kind: str) -> Int[Tensor, " chosen"]:
    """Latents of one `kind`, ascending."""
    return torch.tensor(
        [j for j, kind_here in enumerate(table["kind"]) if kind_here == kind], dtype=torch.int64
    )


def _unit_histogram(column: Tensor, *, bins: int) -> list[int]:
    known = column[column.isfinite()].float()
    return [int(count) for count in torch.histc(known, bins=bins, min=0, max=1).tolist()]


def _density_histogram(density: Float64[Tensor, " alive"]) -> list[int]:
    logarithm = density.log10()
    edges = torch.tensor(DENSITY_BINS, dtype=torch.float64)
    index = torch.bucketize(logarithm, edges[1:-1])
    return torch.bincount(index, minlength=len(edges) - 1).tolist()
