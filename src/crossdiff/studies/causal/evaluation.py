"""Figures of the causal check: KL, share of the gap closed and patch energy of every condition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float64
from torch import Tensor

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Documents:
    """Sums of KL and patch energy per condition and place, and tokens per place; one column per document."""

    kl: list[Tensor] = field(default_factory=list)
    energy: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)

    def add(self, kl: Tensor, energy: Tensor, places: tuple[Tensor, Tensor]) -> None:
        """KL and energy [condition, token] of one document, and the tokens of every place."""
        for sums, values in ((self.kl, kl), (self.energy, energy)):
            sums.append(torch.stack([values[:, chosen].double().sum(dim=1) for chosen in places]))
        self.counts.append(torch.tensor([len(chosen) for chosen in places], dtype=torch.float64))


def conditions(n_draws: int) -> list[str]:
    """States that the tuned model's later blocks read, in the order of the table."""
    draws = [f"random_{i}" for i in range(n_draws)]
    return ["base", "exclusive", *draws, "exclusive_equal_energy", "top_energy", "all", "tuned"]


def evaluate(
    sums: Documents, names: Sequence[str], *, n_draws: int, resamples: int, seed: int
) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The table of all conditions, and per place (`names`) the exclusive set against the others.

    `energy` is the squared length of the patch, over all tokens of the place, as a share of that of the
    whole difference `x_tuned - x_base`.
    """
    import pandas as pd

    generator = torch.Generator().manual_seed(seed + 1)
    kl, energy = (torch.stack(parts, dim=2) for parts in (sums.kl, sums.energy))
    counts = torch.stack(sums.counts, dim=1)
    rows, places = [], {}
    for place, where in enumerate(names):
        known = counts[place] > 0
        if not bool(known.any()):
            places[where] = {"n_documents": 0, "beaten": None, "n_draws": n_draws}
            continue
        figures, resampled = gap_closed(
            kl[place][:, known], counts[place][known], draws=resamples, generator=generator
        )
        total = energy[place].sum(dim=1)
        figures = torch.cat([figures, (total / total[-1])[:, None]], dim=1)
        columns = ("kl", "kl_low", "kl_high", "closed", "closed_low", "closed_high", "energy")
        for name, values in zip(conditions(n_draws), figures.tolist(), strict=True):
            rows.append({"where": where, "condition": name, **dict(zip(columns, values, strict=True))})
        places[where] = against_draws(figures[:, 3], figures[:, 6], resampled, n_draws=n_draws)
        places[where] |= {"n_documents": int(known.sum()), "n_tokens": int(counts[place].sum())}
    return pd.DataFrame(rows), places


def against_draws(closed: Tensor, energy: Tensor, resampled: Tensor, *, n_draws: int) -> dict[str, Any]:
    """The exclusive set against random sets: sets beaten, margin over their mean, also at equal energy.

    And the set of other latents with the largest patch energy.
    """
    draws = slice(2, 2 + n_draws)
    equal, top, everything = 2 + n_draws, 3 + n_draws, 4 + n_draws
    margin = resampled[:, 1] - resampled[:, draws].mean(dim=1)
    low, high = margin.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    beaten = int((closed[1] > closed[draws]).sum())
    return {
        "beaten": beaten,
        "n_draws": n_draws,
        "p_value": (1 + n_draws - beaten) / (1 + n_draws),
        "closed_exclusive": float(closed[1]),
        "closed_random_mean": float(closed[draws].mean()),
        "closed_random_most": float(closed[draws].max()),
        "closed_equal_energy": float(closed[equal]),
        "beaten_at_equal_energy": int((closed[equal] > closed[draws]).sum()),
        "closed_top_energy": float(closed[top]),
        "closed_all": float(closed[everything]),
        "energy_exclusive": float(energy[1]),
        "energy_random_mean": float(energy[draws].mean()),
        "energy_top_energy": float(energy[top]),
        "margin": float(closed[1] - closed[draws].mean()),
        "margin_low": low,
        "margin_high": high,
    }


def gap_closed(
    divergences: Float64[Tensor, "condition document"],
    n_tokens: Float64[Tensor, " document"],
    *,
    draws: int,
    generator: torch.Generator,
) -> tuple[Float64[Tensor, "condition figure"], Float64[Tensor, "draw condition"]]:
    """Mean KL per token and `1 - KL / KL_base` of every condition (the first is the unpatched base state).

    Figures: kl, kl_low, kl_high, closed, closed_low, closed_high; 95 % percentile intervals over `draws`
    resamplings of documents, shared by all conditions. Also returns the resampled shares closed, to compare
    conditions pairwise.
    """
    n = divergences.shape[1]
    weights = torch.zeros(draws, n, dtype=torch.float64)
    picked = torch.randint(n, (draws, n), generator=generator)
    weights.scatter_add_(1, picked, torch.ones(draws, n, dtype=torch.float64))
    mean = divergences.sum(1) / n_tokens.sum()
    resampled = (weights @ divergences.T) / (weights @ n_tokens)[:, None]
    closed, closed_resampled = 1 - mean / mean[0], 1 - resampled / resampled[:, :1]
    columns = [mean, *_percentiles(resampled), closed, *_percentiles(closed_resampled)]
    return torch.stack(columns, dim=1), closed_resampled


def _percentiles(resampled: Float64[Tensor, "draw condition"]) -> Tensor:
    return resampled.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64), dim=0)
