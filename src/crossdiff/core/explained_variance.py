"""How well a crosscoder reconstructs: sums for the fraction of variance explained and for L0."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from crossdiff.core.axes import Activations


@dataclass
class FitSums:
    """Float64 sums in the normalised space; FVE is the same in raw units (one scalar per model)."""

    n_tokens: int
    n_active: int
    residual: Float64[Tensor, " model"]
    square: Float64[Tensor, " model"]
    total: Float64[Tensor, "model d_model"]

    @classmethod
    def zeros(cls, like: Activations) -> FitSums:
        """No token yet, for activations shaped like `like`."""
        _, n_models, d_model = like.shape
        zeros = torch.zeros(n_models, d_model, dtype=torch.float64, device=like.device)
        return cls(0, 0, zeros[:, 0].clone(), zeros[:, 0].clone(), zeros)

    def add(self, x: Activations, x_hat: Activations, *, n_active: int) -> None:
        """Add tokens and their reconstruction."""
        self.n_tokens += x.shape[0]
        self.n_active += n_active
        self.residual += (x - x_hat).square().sum(dim=(0, 2), dtype=torch.float64)
        self.square += x.square().sum(dim=(0, 2), dtype=torch.float64)
        self.total += x.sum(dim=0, dtype=torch.float64)

    def merge(self, other: FitSums) -> None:
        """Add the sums over other tokens."""
        self.n_tokens += other.n_tokens
        self.n_active += other.n_active
        self.residual += other.residual
        self.square += other.square
        self.total += other.total

    def to(self, device: torch.device | str) -> FitSums:
        """The same sums on another device."""
        parts = (part.to(device) for part in (self.residual, self.square, self.total))
        return FitSums(self.n_tokens, self.n_active, *parts)

    def check_finite(self) -> None:
        """ValueError when any activation or reconstruction of the pass was NaN or infinite.

        A sum is finite only if all its terms are, so that one look at the end of a pass sees every token.
        """
        bad = (~self.total.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if bad:
            raise ValueError(
                f"activations of model(s) {bad} (0 is base) are NaN or infinite somewhere in the "
                f"{self.n_tokens:,} tokens of this pass; drop the documents that hold such values, or "
                "harvest again with dtype=float32"
            )
        if not bool(self.residual.isfinite().all()):
            raise ValueError(
                f"reconstructions of finite activations are NaN or infinite in a pass of {self.n_tokens:,} "
                "tokens; the crosscoder's weights are damaged, or these activations too large for its dtype: "
                "train it again, or scale it in dtype=float64"
            )

    def explained(self) -> list[float]:
        """FVE per model over these tokens: `1 - sum |x - x_hat|^2 / sum |x - mean|^2` (method.md 2)."""
        variance = self.square - self.total.square().sum(dim=1) / self.n_tokens
        return (1 - self.residual / variance).tolist()

    def l0(self) -> float:
        """Mean number of active latents per token."""
        return self.n_active / self.n_tokens
