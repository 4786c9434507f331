"""How the codes of chosen latents are distributed over all tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor

PER_OCTAVE = 2
LOWEST, HIGHEST = -20, 20
"""Bins go from 2**-20 to 2**20, `PER_OCTAVE` to a doubling; what lies outside is counted in the end bins."""
N_BINS = (HIGHEST - LOWEST) * PER_OCTAVE


@dataclass(frozen=True)
class CodeHistogram:
    """Active tokens per latent and bin; bin i holds codes in [2**(LOWEST + i/PER_OCTAVE), the next edge)."""

    counts: Int64[Tensor, "chosen bin"]

    @classmethod
    def empty(cls, n_latents: int) -> CodeHistogram:
        """No token seen yet."""
        return cls(torch.zeros(n_latents, N_BINS, dtype=torch.int64))

    def add(self, code: Float[Tensor, "token chosen"]) -> None:
        """Count the active (positive) codes of these tokens."""
        place = code.nonzero(as_tuple=True)
        positions = (code[place].double().log2() - LOWEST) * PER_OCTAVE
        bins = positions.floor().long().clamp(0, N_BINS - 1)
        flat = place[1] * N_BINS + bins
        self.counts.view(-1).add_(torch.bincount(flat, minlength=self.counts.numel()))

    def of(self, place: int) -> dict[str, list[float] | list[int]] | None:
        """`edges` and `counts` of one latent, from its first to its last used bin; None if it never fired."""
        used = self.counts[place].nonzero().flatten()
        if not len(used):
            return None
        first, last = int(used[0]), int(used[-1]) + 1
        edges = [float(f"{2 ** (LOWEST + i / PER_OCTAVE):.6g}") for i in range(first, last + 1)]
        return {"edges": edges, "counts": self.counts[place, first:last].tolist()}
