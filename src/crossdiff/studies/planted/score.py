"""Scores of a crosscoder and its calls against the planted truth."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.studies.planted.settings import KINDS
from crossdiff.studies.planted.world import BASE, TUNED, Planted

if TYPE_CHECKING:
    import pandas as pd

MATCHED = 0.7
FREQUENT, SCARCE = 0.01, 0.003
BASE_EXTRA = "base_extra"
"""The base model's extra use of a decoupled latent's direction, at other tokens: base-only in truth."""
TRUE_KINDS: dict[str, tuple[str, ...]] = {"tuned": ("tuned_only",), "base": ("base_only", BASE_EXTRA)}


@dataclass(frozen=True)
class Truth:
    """The latents of a perfect dictionary: the planted ones, then the base's extra use of decoupled ones.

    The extra is the base half of the decoupled direction, so its cosine with the decoupled latent is about
    1 / sqrt 2; without its own row it would count as the decoupled latent or as none.
    """

    directions: Float[Tensor, "truth model d_model"]
    frequency: Float[Tensor, " truth"]
    kinds: list[str]

    @classmethod
    def of(cls, planted: Planted) -> Truth:
        """Planted latents in their order, then one extra per decoupled latent."""
        decoupled = planted.of("decoupled")
        extra = planted.directions[decoupled].clone()
        extra[:, TUNED] = 0
        return cls(
            torch.cat([planted.directions, extra]),
            torch.cat([planted.frequency, planted.frequency[decoupled]]),
            [*planted.kinds, *[BASE_EXTRA] * len(extra)],
        )

    def any_of(self, *kinds: str) -> Bool[Tensor, " truth"]:
        """Mask of true latents of these kinds."""
        return torch.tensor([kind in kinds for kind in self.kinds], dtype=torch.bool)


@dataclass(frozen=True)
class Recovery:
    """Cosines of true and learned directions, both models side by side, in the normalised space.

    latent, cosine: best alive latent per true one and its cosine; owner, learned_cosine: the reverse.
    """

    truth: Truth
    latent: Int[Tensor, " truth"]
    cosine: Float[Tensor, " truth"]
    owner: Int[Tensor, " latent"]
    learned_cosine: Float[Tensor, " latent"]

    @property
    def matched(self) -> Bool[Tensor, " latent"]:
        """Learned latents that resemble a true one."""
        return self.learned_cosine > MATCHED


def recover(crosscoder: Crosscoder, planted: Planted, *, alive: Bool[Tensor, " latent"]) -> Recovery:
    """Match every true latent with the learned one of highest cosine, and the reverse.

    A difference dictionary is matched with the difference that a true latent makes, in raw units.
    """
    truth = Truth.of(planted)
    raw = truth.directions * torch.tensor(planted.settings.scales)[:, None]
    if crosscoder.settings.architecture == "diff_sae":
        directions = normalize(raw[:, TUNED] - raw[:, BASE])
    else:
        directions = normalize((raw * crosscoder.normaliser.scale[:, None]).flatten(1))
    cosine = directions @ normalize(crosscoder.decoder.detach().flatten(1)).T
    cosine[:, ~alive] = -1
    best, latent = cosine.max(dim=1)
    learned, owner = cosine.max(dim=0)
    return Recovery(truth, latent, best, owner, learned)


def score(table: pd.DataFrame, crosscoder: Crosscoder, planted: Planted) -> dict[str, Any]:
    """One row of the study's table: matching, then precision, recall and F1 of the exclusive calls.

    `norm_*` calls a latent by `kind` alone, `scaling_*` by the table's call; bands of `_bands`. A call is
    right when the most similar true latent (cosine above 0.7) is tuned-only. One without a similar true
    latent has no frequency: it is wrong in `precision_all` and in no other band. `*_base_*` are the base
    side's calls, for which base-only latents and the extras of decoupled ones are right.
    """
    alive = _where(table, "kind", "dead").logical_not()
    recovery = recover(crosscoder, planted, alive=alive)
    planted_cosine = recovery.cosine[: len(planted.kinds)]
    row: dict[str, Any] = {
        "mean_max_cosine": float(planted_cosine.mean()),
        "matched": float((planted_cosine > MATCHED).double().mean()),
        "planted_l0": float(recovery.truth.frequency.sum()),
        **_held(recovery),
    }
    for method in ("norm", "scaling"):
        called = _called(table, method, "tuned")
        for band, members in _bands(recovery.truth.frequency).items():
            figures = _retrieval(recovery, called, "tuned", members)
            row |= {f"{method}_{name}_{band}": value for name, value in figures.items()}
        row[f"{method}_n_called"] = int(called.sum())
        row |= {f"{method}_called_{kind}": n for kind, n in _called_by_kind(recovery, called).items()}
        figures = _retrieval(recovery, _called(table, method, "base"), "base")
        row |= {f"{method}_base_{name}_all": value for name, value in figures.items()}
    return row


def score_difference(table: pd.DataFrame, crosscoder: Crosscoder, planted: Planted) -> dict[str, Any]:
    """The row of a difference dictionary, which makes no call: directions held, and whether signs are right.

    `sign_right`: of the learned latents that resemble a tuned-only or base-only one and have a sign, the
    share whose sign is up and down respectively; None where there is none.
    """
    found = recover(crosscoder, planted, alive=_where(table, "kind", "dead").logical_not())
    up, down = _where(table, "sign", "up"), _where(table, "sign", "down")
    of_side = {
        side: found.truth.any_of(*kinds)[found.owner] & found.matched for side, kinds in TRUE_KINDS.items()
    }
    right = (of_side["tuned"] & up) | (of_side["base"] & down)
    return {
        "mean_max_cosine": float(found.cosine[: len(planted.kinds)].mean()),
        "planted_l0": float(found.truth.frequency.sum()),
        **_held(found),
        "n_up": int(up.sum()),
        "n_down": int(down.sum()),
        "sign_right": _share(right, (of_side["tuned"] | of_side["base"]) & (up | down)),
    }


def _held(found: Recovery) -> dict[str, float | None]:
    """Share of the planted tuned-only latents that some alive latent resembles, called or not, per band."""
    wanted = found.truth.any_of(*TRUE_KINDS["tuned"])
    held = {}
    for band, members in _bands(found.truth.frequency).items():
        inside = wanted if members is None else wanted & members
        held[f"held_tuned_{band}"] = _share(inside & (found.cosine > MATCHED), inside)
    return held


def _called(table: pd.DataFrame, method: str, side: str) -> Bool[Tensor, " latent"]:
    if method == "norm":
        return _where(table, "kind", f"{side}_only")
    return _where(table, "exclusive_to", side)


def _called_by_kind(recovery: Recovery, called: Bool[Tensor, " latent"]) -> dict[str, int]:
    """Called latents by the kind of the most similar true latent; `unmatched` have none."""
    matched = called & recovery.matched
    kinds = (*KINDS, BASE_EXTRA)
    counts = {kind: int((matched & recovery.truth.any_of(kind)[recovery.owner]).sum()) for kind in kinds}
    return {**counts, "unmatched": int((called & ~recovery.matched).sum())}


def _bands(frequency: Float[Tensor, " truth"]) -> dict[str, Bool[Tensor, " truth"] | None]:
    """Band -> mask by frequency (share of tokens); None for all, unmatched calls included."""
    frequent, scarce = frequency >= FREQUENT, frequency < SCARCE
    return {"frequent": frequent, "rare": ~frequent & ~scarce, "scarce": scarce, "all": None}


def _retrieval(
    recovery: Recovery,
    called: Bool[Tensor, " latent"],
    side: str,
    members: Bool[Tensor, " truth"] | None = None,
) -> dict[str, float | None]:
    wanted = recovery.truth.any_of(*TRUE_KINDS[side])
    concerned = called
    if members is not None:
        wanted = wanted & members
        concerned = called & recovery.matched & members[recovery.owner]
    precision = _share(concerned & recovery.matched & wanted[recovery.owner], concerned)
    recall = _share(wanted & (recovery.cosine > MATCHED) & called[recovery.latent], wanted)
    if precision is None or recall is None:
        return {"precision": precision, "recall": recall, "f1": 0.0 if recall == 0 else None}
    f1 = 0.0 if precision + recall == 0 else 2 * precision * recall / (precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def _where(table: pd.DataFrame, column: str, value: str) -> Bool[Tensor, " latent"]:
    return torch.tensor([cell == value for cell in table[column]], dtype=torch.bool)


def _share(part: Tensor, whole: Tensor) -> float | None:
    total = int(whole.sum())
    return int(part.sum()) / total if total else None
