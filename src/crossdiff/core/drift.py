"""Drift: how much more one model uses a latent that both models have.

Latent scaling gives, for a probe p (the direction of one model), the least-squares factor `beta_activation`
of `code * direction p` in the activation of every model (core/latent_scaling.py, Minder et al. 2025). Drift
is

    1/2 * sum over the two probes of log(beta_activation of the tuned model / that of the base model)

a natural logarithm: 0 is equal use, log 2 means that the tuned model uses the latent twice as strongly,
-log 2 the base model. Where a latent writes a_m * u_m (unit vector u_m) into model m, the probe of the tuned
model gives log(a_tuned / a_base) - log cos(u_base, u_tuned) and that of the base model the same with
+ log cos: in the mean a mere rotation of the direction cancels, which one probe alone would call drift.

That fine-tuning changes the use of features that both models have, rather than adding new ones, is what
Galichin et al. call feature drift (Findings of EACL 2026, 96). The measure above is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import TARGETS, Betas

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

MIN_DOCUMENTS = int(SelectionSettings.model_fields["min_documents"].default)
"""Fewer active documents say too little about a latent's use."""
BASE, TUNED = 0, 1
COLUMNS = {BASE: "_baseprobe", TUNED: ""}
"""Probe -> end of the names of its columns."""


def drift_of(beta: Betas) -> Float64[Tensor, "*group latent"]:
    """Drift from betas; NaN where one of the four is missing, zero or negative.

    A beta that is not positive says that the activation does not hold the direction, or holds its opposite:
    then there is no factor between two uses.
    """
    activation = beta[TARGETS.index("activation")]
    base, tuned = activation[: TUNED + 1, BASE], activation[: TUNED + 1, TUNED]
    logs = torch.where((base > 0) & (tuned > 0), (tuned / base).log(), torch.nan)
    return logs.mean(dim=0)


def drift(table: pd.DataFrame) -> NDArray[np.float64]:
    """Drift of every row of a latent table, also of one that was written without the column."""
    names = [[f"beta_activation_{model}{COLUMNS[p]}" for model in ("base", "tuned")] for p in (BASE, TUNED)]
    if not {name for probe in names for name in probe} <= set(table.columns):
        return np.full(len(table), np.nan)
    beta = np.full((len(TARGETS), 2, 2, len(table)), np.nan)
    beta[TARGETS.index("activation")] = [[table[name].to_numpy(float) for name in probe] for probe in names]
    return drift_of(torch.from_numpy(beta)).numpy()


def _sure(table: pd.DataFrame) -> NDArray[np.float64]:
    """Distance of the interval from 0; 0 where it holds 0, -1 where it does not exist."""
    if "drift_low" not in table.columns:
        return np.zeros(len(table))
    low, high = table["drift_low"].to_numpy(float), table["drift_high"].to_numpy(float)
    return np.where(np.isfinite(low + high), np.maximum(np.maximum(low, -high), 0), -1.0)


@dataclass(frozen=True)
class Drifted:
    """Shared latents and their drift, the most drifted first; `n_unknown` shared ones have none."""

    latents: list[int]
    drift: list[float]
    n_unknown: int


def drifted(table: pd.DataFrame) -> Drifted:
    """The shared latents of a latent table, the surest drift first, then by |drift| and number.

    Shared: called not exclusive, active in at least `MIN_DOCUMENTS` documents (so alive). Sure is the end of
    the interval nearer to 0: a beta barely above 0 gives a huge logarithm that says nothing. A table without
    intervals is ordered by |drift| alone.
    """
    shared = np.asarray(table["call"] == "not_exclusive") & np.asarray(table["n_documents"] >= MIN_DOCUMENTS)
    found, latents = drift(table)[shared], np.asarray(table["latent"])[shared]
    known = np.isfinite(found)
    order = np.lexsort((latents[known], -np.abs(found[known]), -_sure(table)[shared][known]))
    return Drifted(
        latents[known][order].tolist(), found[known][order].tolist(), n_unknown=int((~known).sum())
    )
