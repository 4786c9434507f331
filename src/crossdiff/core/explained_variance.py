"""Sums for the fraction of variance explained (FVE) and for L0."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float64, Int, Shaped
from torch import Tensor

from crossdiff.core.codes import Activations

SUMS = ("residual", "square", "total")


@dataclass
class FitSums:
    """Float64 sums in the normalised space; FVE is the same in raw units (one scalar per model).

    Row 0 of a sum is over all tokens, row 1 over the first token of every document, where attention sinks
    are: their norm can be a hundred times that of other tokens, so that they alone decide an FVE.
    """

    residual: Float64[Tensor, "2 model"]
    square: Float64[Tensor, "2 model"]
    total: Float64[Tensor, "2 model d_model"]
    n_tokens: int = 0
    n_active: int = 0
    n_first: int | None = 0
    """First tokens of documents; None where the documents are unknown."""
    _last: Int[Tensor, " 1"] | None = field(default=None, repr=False)
    """Document of the last token, which the next batch may continue."""

    @classmethod
    def zeros(cls, like: Activations) -> FitSums:
        """Sums over no tokens, for activations shaped like `like`."""
        total = torch.zeros(2, *like.shape[1:], dtype=torch.float64, device=like.device)
        return cls(total[..., 0].clone(), total[..., 0].clone(), total)

    def add(
        self,
        x: Activations,
        x_hat: Activations,
        *,
        n_active: int = 0,
        document: Int[Tensor, " token"] | None = None,
    ) -> None:
        """Add tokens and their reconstruction; tokens of one document are consecutive."""
        self.n_tokens += x.shape[0]
        self.n_active += n_active
        self._add(0, x, x_hat)
        if document is None:
            self.n_first = None
        elif self.n_first is not None and len(document):
            first = self._first(document)
            self.n_first += len(first)
            self._add(1, x[first], x_hat[first])

    def _add(self, row: int, x: Activations, x_hat: Activations) -> None:
        self.residual[row] += (x - x_hat).square().sum(dim=(0, 2), dtype=torch.float64)
        self.square[row] += x.square().sum(dim=(0, 2), dtype=torch.float64)
        self.total[row] += x.sum(dim=0, dtype=torch.float64)

    def _first(self, document: Int[Tensor, " token"]) -> Int[Tensor, " first"]:
        """Places of the first tokens of documents."""
        before = document[:1] - 1 if self._last is None else self._last.to(document.device)
        self._last = document[-1:].clone()
        return (document != torch.cat([before, document[:-1]])).nonzero().squeeze(1).to(self.total.device)

    def merge(self, other: FitSums) -> None:
        """Add the sums over other documents."""
        self.n_tokens += other.n_tokens
        self.n_active += other.n_active
        if self.n_first is not None:
            self.n_first = None if other.n_first is None else self.n_first + other.n_first
        for name in SUMS:
            getattr(self, name).add_(getattr(other, name).to(self.total.device))

    def to(self, device: torch.device | str) -> FitSums:
        """The sums on a device."""
        return replace(self, **{name: getattr(self, name).to(device) for name in SUMS})

    def check_finite(self) -> None:
        """ValueError where an activation or reconstruction of the pass was NaN or infinite.

        A sum is finite only if all its terms are, so one check at the end covers every token.
        """
        bad = (~self.total[0].isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"activations of model(s) {bad} (0 is base) are NaN or infinite somewhere in the "
                f"{self.n_tokens:,} tokens of this pass; drop the documents with such values, or "
                "harvest again with dtype=float32"
            )
        if not bool(self.residual.isfinite().all()):
            raise ValueError(
                f"reconstructions of finite activations are NaN or infinite in a pass of {self.n_tokens:,} "
                "tokens; the crosscoder's weights are damaged, or these activations too large for its dtype: "
                "train it again, or scale it in dtype=float64"
            )

    def explained(self) -> list[float]:
        """Per model `1 - sum |x - x_hat|^2 / sum |x - mean|^2` (method.md section 2); NaN without any."""
        return _explained(self.n_tokens, self.residual[0], self.square[0], self.total[0])

    def explained_without_first(self) -> list[float]:
        """FVE per model over all tokens but the first of every document; NaN where documents are unknown.

        It is a difference of float64 sums of the same float32 terms, so sinks cancel to 1e-16.
        """
        if self.n_first is None:
            return [float("nan")] * self.residual.shape[1]
        rest = (sums[0] - sums[1] for sums in (self.residual, self.square, self.total))
        return _explained(self.n_tokens - self.n_first, *rest)

    def l0(self) -> float:
        """Mean number of active latents per token; NaN without tokens."""
        return self.n_active / self.n_tokens if self.n_tokens else float("nan")


def _explained(
    n_tokens: int, residual: Shaped[Tensor, " model"], square: Tensor, total: Tensor
) -> list[float]:
    variance = square - total.square().sum(dim=1) / max(1, n_tokens)
    return torch.where(variance > 0, 1 - residual / variance, torch.nan).tolist()
