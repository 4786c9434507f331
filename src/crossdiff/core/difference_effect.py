"""Which way a latent of a difference dictionary (diff_sae) goes: which of the models goes further?

A diff_sae latent is a direction of `x_tuned - x_base` and says nothing of either model alone: it fires as
well where the tuned model adds the direction as where the base model held its opposite and lost it. Both
models' own activations tell the two apart (`effects`). The dictionary is that of Aranguri, Drori and Nanda
(2025, "SAE on activation differences"); the sign is our own, in the form of `decoder_norms.delta_norm`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor
from torch.nn.functional import normalize

from crossdiff.core.codes import Activations, SparseCode, projections
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.explained_variance import FitSums
from crossdiff.core.jackknife import freedom_by_energy, jackknife
from crossdiff.core.streaming import N_GROUPS, DocumentCounts, PassSums, document_group

BASE, TUNED = 0, 1


@dataclass
class EffectSums(PassSums):
    """Float64 sums over tokens in hash groups of documents; they add and merge.

    With x the raw activations of both models and u_j the unit direction of latent j:
    tokens     N_g          [group]
    total      sum_t x_t^m  [group, model, d_model]
    n_fired    tokens on which j fires   [group, latent]
    projected  sum of <x_t^m, u_j> over the tokens on which j fires   [model, group, latent]
    """

    n_latents: int
    d_model: int
    n_groups: int = N_GROUPS
    device: torch.device | str = "cpu"
    n_tokens: int = 0
    tokens: Float64[Tensor, " group"] = field(init=False)
    total: Float64[Tensor, "group model d_model"] = field(init=False)
    n_fired: Float64[Tensor, "group latent"] = field(init=False)
    projected: Float64[Tensor, "model group latent"] = field(init=False)
    maximum: Float64[Tensor, " latent"] = field(init=False)
    documents: DocumentCounts = field(init=False)
    fit: FitSums | None = None

    ADDED: ClassVar[tuple[str, ...]] = ("tokens", "total", "n_fired", "projected")

    def __post_init__(self) -> None:
        options = {"dtype": torch.float64, "device": self.device}
        self.tokens = torch.zeros(self.n_groups, **options)
        self.total = torch.zeros((self.n_groups, 2, self.d_model), **options)
        self.n_fired = torch.zeros((self.n_groups, self.n_latents), **options)
        self.projected = torch.zeros((2, self.n_groups, self.n_latents), **options)
        self.maximum = torch.zeros(self.n_latents, **options)
        self.documents = DocumentCounts(self.n_latents)

    @classmethod
    def empty(cls, crosscoder: Crosscoder, *, documents: bool) -> EffectSums:
        """Sums over no token yet, on the dictionary's device."""
        groups, device = (N_GROUPS if documents else 1), crosscoder.decoder.device
        return cls(crosscoder.n_latents, crosscoder.d_model, n_groups=groups, device=device)

    @torch.no_grad()
    def add(
        self,
        crosscoder: Crosscoder,
        x: Activations,
        *,
        document: Int[Tensor, " token"] | None = None,
        template: Bool[Tensor, " token"] | None = None,
    ) -> SparseCode:
        """Encode the difference of raw activations of both models and add everything; returns the code."""
        check_input(crosscoder, x)
        xn = crosscoder.normaliser.normalise(crosscoder.inputs(x))
        code = crosscoder.encode_normalised(xn)
        self.n_tokens += x.shape[0]
        self.fit = self.fit or FitSums.zeros(xn)
        self.fit.add(xn, crosscoder.decode_normalised(code), n_active=len(code), document=document)
        group = self._group(x, document)
        self.tokens += torch.bincount(group, minlength=self.n_groups)
        self.total.index_add_(0, group, x.double())
        slot = group[code.token] * self.n_latents + code.latent
        self.n_fired.view(-1).index_add_(0, slot, torch.ones_like(code.value, dtype=torch.float64))
        along = projections(x, code, normalize(crosscoder.decoder, dim=2)).double()
        for model in (BASE, TUNED):
            self.projected[model].view(-1).index_add_(0, slot, along[:, model, 0])
        self.maximum.scatter_reduce_(0, code.latent, code.value.double(), "amax")
        if document is not None:
            self.documents.add(code.latent, document[code.token])
        return code

    def _group(self, x: Tensor, document: Tensor | None) -> Int[Tensor, " token"]:
        if document is None or self.n_groups == 1:
            return torch.zeros(len(x), dtype=torch.int64, device=x.device)
        return document_group(document, n_groups=self.n_groups)


@dataclass(frozen=True)
class Effects:
    """Per latent, in raw activation units along its unit direction; NaN where it never or always fires.

    shift     how much further model m lies along u_j where j fires than elsewhere  [model, latent]
    effect    `(|shift_tuned| - |shift_base|) / max(|shift_tuned|, |shift_base|)`: 1 where the tuned model
              alone moves, -1 where the base model alone does, 0 where both move as far
    low, high 95 % interval over documents of `shift_tuned + shift_base`, which has the sign of the effect
              wherever `shift_tuned > shift_base`
    """

    shift: Float64[Tensor, "model latent"]
    effect: Float64[Tensor, " latent"]
    low: Float64[Tensor, " latent"]
    high: Float64[Tensor, " latent"]

    @property
    def follows(self) -> Bool[Tensor, " latent"]:
        """Whether the difference goes the latent's own way where it fires, as it was trained to."""
        return self.shift[TUNED] > self.shift[BASE]


def effects(decoder: Float64[Tensor, "latent 1 d_model"], sums: EffectSums) -> Effects:
    """`shift_j^m = mean of <x^m, u_j> where j fires - its mean where j does not`, and what follows of it.

    With shift_tuned > shift_base, |shift_tuned| > |shift_base| says the same as shift_tuned + shift_base > 0,
    which is linear in the activations and so has an interval (delete-a-group jackknife over documents).
    """
    unit = normalize(decoder[:, 0], dim=1)
    total = torch.einsum("gmd,ld->mgl", sums.total, unit)
    tokens = sums.tokens[:, None]
    whole = _shift(sums.projected.sum(1), sums.n_fired.sum(0), total.sum(1), tokens.sum(0))
    rest = (part.sum(-2, keepdim=True) - part for part in (sums.projected, sums.n_fired, total, tokens))
    without = _shift(*rest)
    size = whole.abs()
    effect = (size[TUNED] - size[BASE]) / size.max(dim=0).values
    low, high = jackknife(
        whole.sum(0),
        without.sum(0),
        used=int((sums.tokens > 0).sum()),
        fired=(sums.n_fired > 0).sum(0),
        limit=freedom_by_energy(sums.n_fired),
    )
    return Effects(whole, effect, low, high)


def _shift(projected: Tensor, n_fired: Tensor, total: Tensor, tokens: Tensor) -> Tensor:
    return projected / n_fired - (total - projected) / (tokens - n_fired)


def check_input(crosscoder: Crosscoder, x: Tensor) -> None:
    """ValueError unless this is a trained difference dictionary and x holds two models of its width."""
    if crosscoder.settings.architecture != "diff_sae":
        raise ValueError(
            f"a {crosscoder.settings.architecture} dictionary has a direction per model, whose latents are "
            "called by latent scaling; the sign of an effect is of dictionary.architecture=diff_sae"
        )
    if bool(crosscoder.threshold.isnan()):
        raise ValueError(
            "this dictionary's inference threshold is not set (NaN), so no latent could be called active; "
            "train it to the end (training sets the threshold), or set `crosscoder.threshold`"
        )
    if x.dim() != 3 or tuple(x.shape[1:]) != (2, crosscoder.d_model):
        raise ValueError(
            f"activations of shape {tuple(x.shape)} do not fit this dictionary, which reads the difference "
            f"of [token, 2 models, {crosscoder.d_model} wide]; give the activations it was trained on"
        )
