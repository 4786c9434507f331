"""Codes as lists of their active entries."""

from __future__ import annotations

from dataclasses import dataclass

import torch

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

    def csr(self) -> torch.Tensor:
        """The same code as a sparse CSR matrix `[token, latent]`."""
        counts = torch.bincount(self.token, minlength=self.n_tokens)
        row_start = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        return torch.sparse_csr_tensor(row_start, self.latent, self.value, (self.n_tokens, self.n_latents))
