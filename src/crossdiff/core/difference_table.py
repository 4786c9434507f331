"""The latent table and the diagnostics of a difference dictionary (diff_sae): signs instead of calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.difference_effect import BASE, TUNED, Effects, EffectSums, effects
from crossdiff.core.exclusive_call import SelectionSettings

if TYPE_CHECKING:
    import pandas as pd

Sign = Literal["up", "down", "undecided"]
SIGNS: tuple[Sign, ...] = ("up", "down", "undecided")
NO_CALL = "no_call"
"""What the column `call` holds: a direction of the difference belongs to neither model."""


def difference_table(
    crosscoder: Crosscoder,
    batches: Iterable[tuple[Tensor, Tensor]],
    *,
    selection: SelectionSettings | None = None,
) -> pd.DataFrame:
    """The table from one pass over batches of `x [token 2 d_model]` (raw units) and document numbers."""
    sums = EffectSums.empty(crosscoder, documents=True)
    for x, document in batches:
        sums.add(crosscoder, x.to(crosscoder.decoder), document=document)
    return sign_table(crosscoder, sums, selection or SelectionSettings())


def sign_table(crosscoder: Crosscoder, sums: EffectSums, selection: SelectionSettings) -> pd.DataFrame:
    """One row per latent (columns: docs/report.md); `exclusive_to` is empty for all.

    sign
        up: where the latent fires, the tuned model lies further along its direction than the base model;
        down: the base model lies further along the opposite one, which the tuned model lost.
        undecided: fewer than `selection.min_tokens` or `min_documents`, an interval that holds 0, or a
        difference that does not go the latent's way. Empty for dead latents.
    """
    import pandas as pd

    if sums.fit is not None:
        sums.fit.check_finite()
    found = effects(crosscoder.decoder.detach().double(), sums)
    n_active = sums.n_fired.sum(0).long().cpu()
    known = sums.n_groups > 1
    documents = sums.documents.counts() if known else torch.full((len(n_active),), torch.nan)
    enough = (n_active >= selection.min_tokens) & (documents >= selection.min_documents)
    columns = {
        "latent": torch.arange(len(n_active)),
        "n_active": n_active,
        "n_documents": documents,
        "density": n_active.double() / (sums.n_tokens or torch.nan),
        "largest_code": torch.where(n_active == 0, torch.nan, sums.maximum.cpu()),
        "shift_base": found.shift[BASE],
        "shift_tuned": found.shift[TUNED],
        "effect": found.effect,
        "shift_sum_low": found.low,
        "shift_sum_high": found.high,
    }
    frame = pd.DataFrame({name: _finite(values) for name, values in columns.items()})
    frame["kind"] = ["other" if n else "dead" for n in n_active.tolist()]
    frame["call"] = NO_CALL
    frame["exclusive_to"] = pd.Series([None] * len(frame), dtype=object)
    frame["sign"] = pd.Series(_signs(found, enough, n_active), dtype=object)
    return frame


def _signs(found: Effects, enough: Tensor, n_active: Tensor) -> list[Sign | None]:
    clear = enough & found.follows.cpu()
    up, down = (clear & (found.low > 0).cpu()).tolist(), (clear & (found.high < 0).cpu()).tolist()
    return [
        None if not n else "up" if is_up else "down" if is_down else "undecided"
        for n, is_up, is_down in zip(n_active.tolist(), up, down, strict=True)
    ]


def _finite(values: Tensor) -> Any:
    values = values.cpu()
    return (
        torch.where(values.isfinite(), values, torch.nan) if values.is_floating_point() else values
    ).numpy()


def diagnose_difference(table: pd.DataFrame, sums: EffectSums) -> dict[str, Any]:
    """The figures of merit of a difference dictionary as JSON-able values; null where unknown."""
    n_alive = sum(kind != "dead" for kind in table["kind"])
    fit = sums.fit
    explained = [] if fit is None else [*fit.explained(), *fit.explained_without_first()]
    whole, without_first = explained or (math.nan, math.nan)
    return {
        "version": 1,
        "architecture": "diff_sae",
        "n_latents": len(table),
        "n_alive": n_alive,
        "dead_share": 1 - n_alive / len(table),
        "n_tokens": sums.n_tokens,
        "fve": {"difference": _known(whole)},
        "fve_without_first": {"difference": _known(without_first)},
        "l0": None if fit is None else fit.l0(),
        "signs": {sign: Counter(table["sign"])[sign] for sign in SIGNS},
    }


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
