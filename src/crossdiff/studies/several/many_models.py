"""Latent scaling of a crosscoder over several models: every model against every other, one long table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossdiff.core.exclusive_call import CALLS, SelectionSettings
from crossdiff.core.latent_table import ERROR, RECONSTRUCTION, Scaled, column

if TYPE_CHECKING:
    import pandas as pd

Pairwise = dict[tuple[int, int], list[str]]
"""(model, other) -> per latent the call of `model` against `other`."""


def pairwise_calls(scaled: Scaled, settings: SelectionSettings) -> Pairwise:
    """The pair's call (method.md section 4) for every two models, each with its own direction as probe.

    `exclusive` for (m, o): exclusive to m, of these two; what is exclusive to o is not_exclusive for m.
    """
    found: Pairwise = {}
    n_models = len(scaled.norms)
    for base in range(n_models):
        for tuned in range(base + 1, n_models):
            calls = scaled.calls(settings, base, tuned)
            for own, other, side in ((base, tuned, "base"), (tuned, base, "tuned")):
                found[own, other] = [
                    call if owner in (side, None) else "not_exclusive"
                    for call, owner in zip(calls.call, calls.exclusive_to, strict=True)
                ]
    return found


def model_table(scaled: Scaled, names: Sequence[str], settings: SelectionSettings) -> pd.DataFrame:
    """One row per (latent, model): norm, own betas, and ratios and calls against every other model.

    norm_share is the norm over the largest of the latent's norms. `nu_error_<o>`, `nu_reconstruction_<o>`
    are model o's beta over this model's, with this model's direction as the probe; NaN for o itself, as is
    `call_<o>`. `call` is exclusive when it is so against **every** other model, not_exclusive when against
    some other it is not, else undecided.
    """
    import pandas as pd

    calls = pairwise_calls(scaled, settings)
    parts = [_rows(scaled, names, own, calls) for own in range(len(names))]
    return pd.concat(parts).sort_values(["latent", "model_index"], ignore_index=True)


def _rows(scaled: Scaled, names: Sequence[str], own: int, calls: Pairwise) -> pd.DataFrame:
    import pandas as pd

    sums, n_latents = scaled.sums, scaled.sums.n_latents
    documents = sums.documents.counts() if scaled.bounds is not None else None
    columns: dict[str, Any] = {
        "latent": range(n_latents),
        "model": names[own],
        "model_index": own,
        "n_active": column(sums.n_active),
        "n_documents": float("nan") if documents is None else column(documents),
        "norm": column(scaled.norms[own]),
        "norm_share": column(scaled.norms[own] / scaled.norms.amax(dim=0)),
        "beta_error": column(scaled.beta[ERROR, own, own]),
        "beta_reconstruction": column(scaled.beta[RECONSTRUCTION, own, own]),
    }
    others = [other for other in range(len(names)) if other != own]
    for other in range(len(names)):
        for name, target in (("error", ERROR), ("reconstruction", RECONSTRUCTION)):
            ratio = column(scaled.nu[target, own, other]) if other != own else float("nan")
            columns[f"nu_{name}_{names[other]}"] = ratio
        columns[f"call_{names[other]}"] = calls[own, other] if other != own else [None] * n_latents
    frame = pd.DataFrame(columns)
    frame["call"] = [_over_all([calls[own, other][j] for other in others]) for j in range(n_latents)]
    return frame


def _over_all(calls: Sequence[str]) -> str:
    exclusive, not_exclusive, undecided = CALLS
    if all(call == exclusive for call in calls):
        return exclusive
    return not_exclusive if not_exclusive in calls else undecided


def exclusive_counts(table: pd.DataFrame, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Model -> other (or `all others`) -> number of latents exclusive to the model against it."""
    found: dict[str, dict[str, int]] = {}
    for name in names:
        own = table[table["model"] == name]
        found[name] = {o: own[f"call_{o}"].tolist().count("exclusive") for o in names if o != name}
        found[name]["all others"] = own["call"].tolist().count("exclusive")
    return found


def shared_by_all_but(table: pd.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """Model -> latents that every other model has exclusively against it: what this model alone lacks."""
    found = {}
    for lacking in names:
        having = [table[table["model"] == name].set_index("latent") for name in names if name != lacking]
        flags = [(own[f"call_{lacking}"] == "exclusive") for own in having]
        found[lacking] = int(sum(flags).eq(len(flags)).sum())  # type: ignore[union-attr]
    return found
