"""How well a crosscoder and its calls recover what was planted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.studies.planted.world import KINDS, Planted

if TYPE_CHECKING:
    import pandas as pd

MATCHED = 0.7
FREQUENT = 0.01


@dataclass(frozen=True)
class Recovery:
    """Cosines of planted and learned directions, both models side by side, in the normalised space.

    of_planted: best alive latent per planted one and its cosine; of_learned: the reverse.
    """

    latent: Int[Tensor, " planted"]
    cosine: Float[Tensor, " planted"]
    planted: Int[Tensor, " latent"]
    learned_cosine: Float[Tensor, " latent"]


def recover(crosscoder: Crosscoder, planted: Planted, *, alive: Bool[Tensor, " latent"]) -> Recovery:
    """Match every planted latent with the learned one of highest cosine, and the reverse."""
    scales = torch.tensor(planted.settings.scales) * crosscoder.normaliser.scale
    truth = normalize((planted.directions * scales[:, None]).flatten(1))
    cosine = truth @ normalize(crosscoder.decoder.detach().flatten(1)).T
    cosine[:, ~alive] = -1
    best, latent = cosine.max(dim=1)
    learned, owner = cosine.max(dim=0)
    return Recovery(latent, best, owner, learned)


def score(table: pd.DataFrame, crosscoder: Crosscoder, planted: Planted) -> dict[str, Any]:
    """One row of the study's table: matching, then precision, recall and F1 of the tuned-only call.

    `norm_*` calls a latent by `kind` alone, `scaling_*` by the table's call; `frequent` are planted latents
    of 1 % of the tokens or more, `rare` the others. A called latent counts as right when the planted latent
    it resembles most (cosine above 0.7) is tuned-only; one that resembles none is wrong in both groups.
    """
    alive = _where(table, "kind", "dead").logical_not()
    found = recover(crosscoder, planted, alive=alive)
    called = {
        "norm": _where(table, "kind", "tuned_only"),
        "scaling": _where(table, "exclusive_to", "tuned"),
    }
    row: dict[str, Any] = {"mean_max_cosine": float(found.cosine.mean())}
    row["matched"] = float((found.cosine > MATCHED).double().mean())
    for method, mask in called.items():
        for group, members in _groups(planted).items():
            figures = _retrieval(found, mask, planted, members)
            row |= {f"{method}_{name}_{group}": value for name, value in figures.items()}
        row[f"{method}_n_called"] = int(mask.sum())
        row |= {f"{method}_called_{kind}": n for kind, n in _called_by_kind(found, mask, planted).items()}
    return row


def _called_by_kind(found: Recovery, called: Bool[Tensor, " latent"], planted: Planted) -> dict[str, int]:
    """Called latents by the kind of the planted latent they resemble; `unmatched` resemble none."""
    matched = called & (found.learned_cosine > MATCHED)
    counts = {kind: int((matched & planted.of(kind)[found.planted]).sum()) for kind in KINDS}
    return {**counts, "unmatched": int((called & (found.learned_cosine <= MATCHED)).sum())}


def _groups(planted: Planted) -> dict[str, Bool[Tensor, " planted"]]:
    frequent = planted.frequency >= FREQUENT
    return {"frequent": frequent, "rare": ~frequent, "all": torch.ones_like(frequent)}


def _retrieval(
    found: Recovery,
    called: Bool[Tensor, " latent"],
    planted: Planted,
    members: Bool[Tensor, " planted"],
) -> dict[str, float | None]:
    truth = planted.of("tuned_only")
    matched = found.learned_cosine > MATCHED
    concerned = called & (~matched | members[found.planted])
    right = called & matched & (truth & members)[found.planted]
    wanted = truth & members
    got = wanted & (found.cosine > MATCHED) & called[found.latent]
    precision = _share(right, concerned)
    recall = _share(got, wanted)
    if precision is None or recall is None:
        return {"precision": precision, "recall": recall, "f1": 0.0 if recall == 0 else None}
    f1 = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def _where(table: pd.DataFrame, column: str, value: str) -> Bool[Tensor, " latent"]:
    return torch.tensor([found == value for found in table[column]], dtype=torch.bool)


def _share(part: Tensor, whole: Tensor) -> float | None:
    total = int(whole.sum())
    return int(part.sum()) / total if total else None
