"""Codes as lists of their active entries."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core.axes import ActiveIndices, ActiveValues, Code


@dataclass(frozen=True)
class SparseCode:
    """The non-zero entries of a code `[token, latent]`, sorted by (token, latent)."""

    token: ActiveIndices
    latent: ActiveIndices
    value: ActiveValues
    n_tokens: int
    n_latents: int

    def __len__(self) -> int:
        return self.value.shape[0]

    def dense(self) -> Code:
        """The same code as a full matrix."""
        full = self.value.new_zeros(self.n_tokens, self.n_latents)
        full[self.token, self.latent] = self.value
        return full

    def row_starts(self) -> Int[Tensor, " token"]:
        """Position of each token's first entry, `[token]`."""
        counts = torch.bincount(self.token, minlength=self.n_tokens)
        return counts.cumsum(0) - counts

    def csr(self) -> Tensor:
        """The same code as a sparse CSR matrix `[token, latent]`."""
        starts = torch.cat([self.row_starts(), self.token.new_tensor([len(self)])])
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Sparse ")
            return torch.sparse_csr_tensor(
                starts, self.latent, self.value, (self.n_tokens, self.n_latents), check_invariants=False
            )
