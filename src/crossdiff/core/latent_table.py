"""The latent table (columns: docs/report.md): one row per latent, from the sums of one pass."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64
from torch import Tensor

from crossdiff.core.codes import Directions
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import delta_norm, gram, has_one_space
from crossdiff.core.drift import drift
from crossdiff.core.exclusive_call import (
    Calls,
    SelectionSettings,
    Side,
    SideEvidence,
    call_latents,
    kinds,
)
from crossdiff.core.jackknife import Intervals, intervals
from crossdiff.core.latent_scaling import (
    TARGETS,
    Betas,
    ScalingSums,
    betas,
    empty_sums,
    in_dtype,
    ratios,
)

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

TOKENS_AT_A_TIME = 4096
BASE, TUNED = 0, 1
ERROR, RECONSTRUCTION = TARGETS.index("error"), TARGETS.index("reconstruction")


@dataclass(frozen=True)
class Scaled:
    """The figures per latent for the table and the call; axes as in `ScalingSums`."""

    norms: Float64[Tensor, "model latent"]
    cosine: Float64[Tensor, " latent"]
    beta: Betas
    nu: Betas
    bounds: Intervals | None
    sums: ScalingSums
    one_space: bool = True

    @classmethod
    def of(cls, decoder: Directions, sums: ScalingSums, *, one_space: bool = True) -> Scaled:
        """Betas, ratios and, with documents, intervals; ValueError for sums that are not finite.

        Without `one_space` all that compares directions of two models is NaN: only diagonals are known.
        """
        if sums.fit is not None:
            sums.fit.check_finite()
        products = gram(decoder)
        if not one_space:
            across = ~torch.eye(sums.n_models, dtype=torch.bool, device=products.device)
            products = products.masked_fill(across[..., None], torch.nan)
            overlap = sums.overlap.masked_fill(across[..., None, None], torch.nan)
            sums = copy.copy(sums)
            sums.overlap = overlap
        beta = betas(sums.energy.sum(0), sums.overlap.sum(-2), products)
        norms = torch.diagonal(products).T.sqrt()
        cosine = products[BASE, -1] / (norms[BASE] * norms[-1])
        known = sums.n_groups > 1
        bounds = intervals(sums, products) if known else None
        return cls(norms, cosine, beta, ratios(beta), bounds, sums, one_space)

    @property
    def dead(self) -> Tensor:
        """Whether each latent was never active in this pass."""
        return self.sums.n_active == 0

    def delta_norm(self, base: int = BASE, tuned: int = TUNED) -> Float64[Tensor, " latent"]:
        """0 base-only, one half shared, 1 tuned-only (method.md section 3)."""
        return delta_norm(self.norms[base], self.norms[tuned])

    def evidence(self, own: int, other: int) -> SideEvidence:
        """Evidence for one side's call: the probe is model `own`'s direction, `nu` is of model `other`."""
        unknown = torch.full_like(self.nu[0, own, other], torch.nan)
        documents = None if self.bounds is None else self.sums.documents.counts().to(unknown.device)
        fields = {}
        for target, name in enumerate(TARGETS):
            fields[f"nu_{name}"] = self.nu[target, own, other]
            fields[f"beta_{name}"] = self.beta[target, own, own]
            low, high, own_low = unknown, unknown, unknown
            if self.bounds is not None:
                low, high = self.bounds.nu_low[target, own, other], self.bounds.nu_high[target, own, other]
                own_low = self.bounds.own_low[target, own]
            fields[f"nu_{name}_bounds"] = torch.stack([low, high])
            fields[f"beta_{name}_low"] = own_low
        return SideEvidence(**fields, n_active=self.sums.n_active, n_documents=documents)

    def calls(self, settings: SelectionSettings, base: int = BASE, tuned: int = TUNED) -> Calls:
        """The exclusive call of every latent of two models, by default those of a pair.

        ValueError where the call needs latent scaling and the models have no common axes.
        """
        if not self.one_space and settings.method != "norm":
            raise ValueError(
                f"method={settings.method} asks whether one model's direction occurs in the other's "
                "activations, and two families have no common directions; give "
                'selection=SelectionSettings(method="norm"), which calls by decoder norms alone'
            )
        sides: dict[Side, SideEvidence] = {
            "tuned": self.evidence(tuned, base),
            "base": self.evidence(base, tuned),
        }
        return call_latents(self.delta_norm(base, tuned), sides, settings, dead=self.dead)


def latent_scaling(
    crosscoder: Crosscoder,
    batches: Iterable[Tensor | tuple[Tensor, Tensor]],
    *,
    dtype: torch.dtype = torch.float64,
    selection: SelectionSettings | None = None,
) -> pd.DataFrame:
    """The latent table from one pass over `batches`.

    A batch is `x [token model d_model]` in raw activation units or `(x, document [token])` with a number per
    document; without documents the interval columns and `n_documents` are NaN and no latent is called
    exclusive, because `min_documents` cannot be met. Betas are in the crosscoder's normalised space.
    `dtype` is that of the encoding and of the sums' inputs; the sums are always float64.
    """
    worker = in_dtype(crosscoder, dtype)
    sums: ScalingSums | None = None
    for batch in batches:
        x, document = batch if isinstance(batch, tuple | list) else (batch, None)
        sums = sums or empty_sums(worker, documents=document is not None)
        if (document is None) != (sums.n_groups == 1):
            raise ValueError(
                "some batches name their documents and some do not; give `document` with all or none"
            )
        _check_documents(x, document)
        for start in range(0, len(x), TOKENS_AT_A_TIME):
            rows = slice(start, start + TOKENS_AT_A_TIME)
            part = x[rows].to(worker.decoder.device, dtype)
            sums.add(worker, part, document=None if document is None else document[rows].to(part.device))
    sums = sums or empty_sums(worker, documents=False)
    return latent_table(worker, sums, selection=selection)


def latent_table(
    crosscoder: Crosscoder, sums: ScalingSums, *, selection: SelectionSettings | None = None
) -> pd.DataFrame:
    """The table of a pair, columns as docs/report.md lists them.

    `nu_*` is beta_base / beta_tuned with the tuned direction as the probe; `nu_*_baseprobe` is the inverse
    ratio, beta_tuned / beta_base, with the base direction as the probe.
    """
    scaled = Scaled.of(crosscoder.decoder, sums, one_space=has_one_space(crosscoder))
    return pair_table(scaled, scaled.calls(selection or SelectionSettings()))


def pair_table(scaled: Scaled, calls: Calls) -> pd.DataFrame:
    """The table with the columns of docs/report.md, in its order."""
    import pandas as pd

    columns = {**_counts(scaled), **_betas_and_ratios(scaled), **_bounds(scaled)}
    frame = pd.DataFrame({name: column(values) for name, values in columns.items()})
    frame["drift"] = drift(frame)
    for end in ("low", "high"):
        bound = torch.full_like(scaled.norms[BASE], torch.nan)
        if scaled.bounds is not None:
            bound = getattr(scaled.bounds, f"drift_{end}")
        frame[f"drift_{end}"] = column(bound)
    frame["kind"] = kinds(scaled.delta_norm(), alive=~scaled.dead)
    frame["call"] = calls.call
    frame["exclusive_to"] = pd.Series(calls.exclusive_to, dtype=object)
    return frame


def _counts(scaled: Scaled) -> dict[str, Tensor]:
    sums, n_latents = scaled.sums, scaled.sums.n_latents
    known = sums.documents.counts() if scaled.bounds is not None else torch.full((n_latents,), torch.nan)
    return {
        "latent": torch.arange(n_latents),
        "n_active": sums.n_active,
        "n_documents": known,
        "density": sums.n_active.double() / (sums.n_tokens or torch.nan),
        "largest_code": torch.where(scaled.dead, torch.nan, sums.maximum),
        "norm_base": scaled.norms[BASE],
        "norm_tuned": scaled.norms[TUNED],
        "delta_norm": scaled.delta_norm(),
        "decoder_cosine": scaled.cosine,
    }


def _betas_and_ratios(scaled: Scaled) -> dict[str, Tensor]:
    columns = {}
    for probe, suffix in ((TUNED, ""), (BASE, "_baseprobe")):
        for target, name in enumerate(TARGETS):
            columns[f"beta_{name}_base{suffix}"] = scaled.beta[target, probe, BASE]
            columns[f"beta_{name}_tuned{suffix}"] = scaled.beta[target, probe, TUNED]
    for probe, other, suffix in ((TUNED, BASE, ""), (BASE, TUNED, "_baseprobe")):
        for target, name in enumerate(TARGETS):
            columns[f"nu_{name}{suffix}"] = scaled.nu[target, probe, other]
    return columns


def _bounds(scaled: Scaled) -> dict[str, Tensor]:
    evidence = scaled.evidence(TUNED, BASE)
    error, reconstruction = evidence.nu_error_bounds, evidence.nu_reconstruction_bounds
    return {
        "nu_error_low": error[0],
        "nu_error_high": error[1],
        "nu_reconstruction_low": reconstruction[0],
        "nu_reconstruction_high": reconstruction[1],
    }


def column(values: Tensor) -> np.ndarray:
    """A column of a table, with NaN for values that are not finite."""
    values = values.cpu()
    if values.is_floating_point():
        values = torch.where(values.isfinite(), values, torch.nan)
    return values.numpy()


def _check_documents(x: Tensor, document: Tensor | None) -> None:
    if document is not None and document.shape != x.shape[:1]:
        raise ValueError(
            f"{len(x)} activations came with document numbers of shape {tuple(document.shape)}; "
            "give one document number per token"
        )
