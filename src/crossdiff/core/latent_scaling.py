"""Latent scaling: how strongly every latent's direction is present in every model, exact, in one pass."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

from crossdiff.core.codes import Activations, SparseCode, projections
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.explained_variance import FitSums
from crossdiff.core.streaming import N_GROUPS, DocumentCounts, PassSums, document_group

TARGETS = ("activation", "reconstruction", "error")
Overlap = Float64[Tensor, "source probe model group latent"]
Betas = Float64[Tensor, "target probe model *group latent"]


@dataclass
class ScalingSums(PassSums):
    """Per-latent float64 sums over active entries (t, j, f); they add and merge, memory O(latents).

    With `x` and `x_hat` in the crosscoder's normalised space and probe p = the direction of model p:
    energy  C_j = sum_t f^2                                               [group, latent]
    overlap P_jpm = sum_t f <x_t^m, d_j^p> and R_jpm = sum_t f <x_hat_t^m, d_j^p>
                                                          [source (P, R), probe, model, group, latent]
    Groups are hash groups of documents (one group when documents are unknown).
    """

    n_latents: int
    n_models: int
    n_groups: int = N_GROUPS
    device: torch.device | str = "cpu"
    n_tokens: int = 0
    energy: Float64[Tensor, "group latent"] = field(init=False)
    overlap: Overlap = field(init=False)
    n_active: Int[Tensor, " latent"] = field(init=False)
    maximum: Float64[Tensor, " latent"] = field(init=False)
    template_energy: Float64[Tensor, " latent"] = field(init=False)
    documents: DocumentCounts = field(init=False)
    fit: FitSums | None = None

    ADDED: ClassVar[tuple[str, ...]] = ("energy", "overlap", "n_active", "template_energy")

    def __post_init__(self) -> None:
        options = {"dtype": torch.float64, "device": self.device}
        shape = (self.n_groups, self.n_latents)
        self.energy = torch.zeros(shape, **options)
        self.overlap = torch.zeros((2, self.n_models, self.n_models, *shape), **options)
        self.n_active = torch.zeros(self.n_latents, dtype=torch.int64, device=self.device)
        self.maximum = torch.zeros(self.n_latents, **options)
        self.template_energy = torch.zeros(self.n_latents, **options)
        self.documents = DocumentCounts(self.n_latents)

    @torch.no_grad()
    def add(
        self,
        crosscoder: Crosscoder,
        x: Activations,
        *,
        document: Int[Tensor, " token"] | None = None,
        template: Bool[Tensor, " token"] | None = None,
    ) -> SparseCode:
        """Encode and reconstruct raw activations, and add them; returns the code."""
        _check_input(crosscoder, x)
        xn = crosscoder.normaliser.normalise(x)
        code = crosscoder.encode_normalised(xn)
        x_hat = crosscoder.decode_normalised(code)
        self.n_tokens += x.shape[0]
        self.fit = self.fit or FitSums.zeros(xn)
        self.fit.add(xn, x_hat, n_active=len(code), document=document)
        slot = self._slot(code, document)
        self._add_entries(code, slot, document=document, template=template)
        self._add_overlaps(crosscoder, code, xn, x_hat, slot)
        return code

    def half(self, which: Literal[0, 1]) -> ScalingSums:
        """The sums of half of the document groups; counts and maxima stay those of all."""
        picked = torch.arange(self.n_groups, device=self.energy.device) % 2 == which
        part = copy.copy(self)
        part.n_groups = int(picked.sum())
        part.energy, part.overlap = self.energy[picked], self.overlap[..., picked, :]
        return part

    def _add_entries(
        self, code: SparseCode, slot: Tensor, *, document: Tensor | None, template: Tensor | None
    ) -> None:
        """Add counts, energies and maxima."""
        value, latent = code.value.double(), code.latent
        square = value.square()
        self.energy.view(-1).index_add_(0, slot, square)
        self.n_active += torch.bincount(latent, minlength=self.n_latents)
        self.maximum.scatter_reduce_(0, latent, value, "amax")
        if template is None:
            self.template_energy.fill_(torch.nan)  # unknown, not none
        else:
            self.template_energy.index_add_(0, latent, square * template[code.token])
        if document is not None:
            self.documents.add(latent, document[code.token])

    def _add_overlaps(
        self, crosscoder: Crosscoder, code: SparseCode, x: Activations, x_hat: Activations, slot: Tensor
    ) -> None:
        value, rows = code.value.double(), torch.cat([x, x_hat], dim=1)
        projected = value[:, None, None] * projections(rows, code, crosscoder.decoder.detach())
        for source in range(2):
            for model in range(self.n_models):
                for probe in range(self.n_models):
                    total = self.overlap[source, probe, model].view(-1)
                    total.index_add_(0, slot, projected[:, source * self.n_models + model, probe])

    def _slot(self, code: SparseCode, document: Tensor | None) -> Tensor:
        """Flat index (group, latent) of each active entry."""
        if document is None or self.n_groups == 1:
            return code.latent
        return document_group(document, n_groups=self.n_groups)[code.token] * self.n_latents + code.latent


def betas(
    energy: Float64[Tensor, "*group latent"],
    overlap: Float64[Tensor, "source probe model *group latent"],
    products: Float64[Tensor, "probe model latent"],
) -> Betas:
    """beta = argmin_b sum_t |y_t - b f_t d|^2 per target (activation, reconstruction, error), probe, model.

    `P/(C D)`, `R/(C D)` and `(P - R)/(C D) + <d^m, d>/D` (method.md section 4). NaN where the latent never
    fired or the probe direction is zero.
    """
    groups = energy.dim() - 1
    square = torch.diagonal(products).T
    square = square.view(square.shape[0], 1, *[1] * groups, -1)
    ratios = products.view(*products.shape[:2], *[1] * groups, -1) / square
    activation, reconstruction = overlap / (energy * square)
    return torch.stack([activation, reconstruction, activation - reconstruction + ratios])


def own_betas(
    beta: Float64[Tensor, "target probe model *group latent"],
) -> Float64[Tensor, "target probe *group latent"]:
    """Beta of the model whose own direction is the probe."""
    return torch.stack([beta[:, probe, probe] for probe in range(beta.shape[1])], dim=1)


def ratios(
    beta: Float64[Tensor, "target probe model *group latent"],
) -> Float64[Tensor, "target probe model *group latent"]:
    """nu: every model's beta over that of the model whose direction is the probe."""
    return beta / own_betas(beta).unsqueeze(2)


def empty_sums(crosscoder: Crosscoder, *, documents: bool) -> ScalingSums:
    """Sums over no tokens, on the crosscoder's device."""
    return ScalingSums(
        crosscoder.n_latents,
        crosscoder.n_models,
        n_groups=N_GROUPS if documents else 1,
        device=crosscoder.decoder.device,
    )


def in_dtype(crosscoder: Crosscoder, dtype: torch.dtype) -> Crosscoder:
    """The crosscoder in `dtype`: itself, or a converted copy."""
    if all(weights.dtype == dtype for weights in crosscoder.state_dict().values()):
        return crosscoder
    return copy.deepcopy(crosscoder).to(dtype)


def _check_input(crosscoder: Crosscoder, x: Tensor) -> None:
    expected = (crosscoder.n_models, crosscoder.d_model)
    if bool(crosscoder.threshold.isnan()):
        raise ValueError(
            "this crosscoder's inference threshold is not set (NaN), so no latent could be called active; "
            "train it to the end (training sets the threshold), or set `crosscoder.threshold`"
        )
    if crosscoder.settings.architecture == "diff_sae":
        raise ValueError(
            "latent scaling compares one decoder direction per model, and a diff_sae dictionary has one "
            "direction in all; take core.difference_table for it, or another dictionary.architecture, "
            "such as standard"
        )
    if x.dim() != 3 or tuple(x.shape[1:]) != expected:
        raise ValueError(
            f"activations of shape {tuple(x.shape)} do not fit this crosscoder, which reads "
            f"[token, {expected[0]} models, {expected[1]} wide]; give the shards "
            "and the crosscoder of the same models and layer"
        )
