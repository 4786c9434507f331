"""How often the 95 % intervals of latent scaling hold the truth, on planted activations.

python -m crossdiff.bench coverage n_documents=256 n_samples=100

Tokens come in documents whose tokens are alike (gains, offsets and topics of their own); a latent's true
ratio is its value on all samples together, `n_samples` times the tokens of one. A case is one latent in one
sample with at least `min_documents` active documents and an interval.
"""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import gram
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.jackknife import intervals
from crossdiff.core.latent_scaling import ScalingSums, betas, ratios
from crossdiff.core.latent_table import BASE, ERROR, RECONSTRUCTION, TUNED
from crossdiff.core.streaming import mix
from crossdiff.settings import Settings
from crossdiff.studies.planted.settings import PlantedSettings
from crossdiff.studies.planted.world import Planted

RATIOS = {"nu_error": ERROR, "nu_reconstruction": RECONSTRUCTION}


class CoverageBench(Settings):
    """Size of the samples; `per_kind` planted latents of each of the six kinds."""

    n_documents: int = Field(default=256, ge=20)
    n_samples: int = Field(default=100, ge=2)
    per_kind: int = Field(default=8, ge=1)
    d_model: int = Field(default=48, ge=2)
    document_length: int = Field(default=32, ge=1)
    min_documents: int = Field(default=30, ge=1)
    unequal: float = Field(default=1.0, ge=1)
    """The longest document over the shortest; lengths in between are drawn log-uniformly."""
    document_share: float = Field(default=0.25, gt=0, le=1)
    """Share of documents in which a latent can fire: low means bursts in few documents."""
    seed: int = 0


def main(overrides: list[str]) -> dict:
    """Share of cases inside their interval, the number of cases and the median width, per ratio."""
    bench = CoverageBench.model_validate(dict(item.split("=", 1) for item in overrides))
    planted = Planted(settings(bench), seed=bench.seed)
    crosscoder = oracle(planted)
    samples = [sample(planted, crosscoder, number, bench) for number in range(bench.n_samples)]
    products = gram(crosscoder.decoder)
    energy, overlap = (
        torch.stack([getattr(s, name) for s in samples]).sum(0) for name in ("energy", "overlap")
    )
    truth = ratios(betas(energy.sum(0), overlap.sum(-2), products))
    figures = {name: coverage(samples, products, truth, target=i, bench=bench) for name, i in RATIOS.items()}
    return {"sizes": bench.model_dump(), "nominal": 0.95, **figures}


def settings(bench: CoverageBench) -> PlantedSettings:
    """Planted latents frequent enough to have active documents in every sample."""
    n = bench.per_kind
    return PlantedSettings(
        d_model=bench.d_model,
        n_shared=n,
        n_rotated=n,
        n_base_only=n,
        n_tuned_only=n,
        n_shrunken=n,
        n_decoupled=n,
        frequencies=(0.05, 0.02),
        document_length=bench.document_length,
        document_share=bench.document_share,
    )


def oracle(planted: Planted) -> Crosscoder:
    """The planted directions as decoder, read off by the same directions; threshold at half a unit."""
    scales = torch.tensor(planted.settings.scales)[:, None]
    directions = planted.directions * scales
    crosscoder = Crosscoder(
        DictionarySettings(n_latents=len(directions)), n_models=2, d_model=planted.settings.d_model
    )
    with torch.no_grad():
        crosscoder.decoder.copy_(directions)
        crosscoder.encoder.copy_(directions / directions.square().sum(dim=(1, 2), keepdim=True))
        crosscoder.normaliser.mean.copy_(planted.mean * scales)
        crosscoder.threshold.fill_(1.5)
    return crosscoder.requires_grad_(requires_grad=False)


def sample(planted: Planted, crosscoder: Crosscoder, number: int, bench: CoverageBench) -> ScalingSums:
    """Sums over documents `number * n_documents` and on, each cut to its length."""
    sums = ScalingSums(crosscoder.n_latents, 2)
    n = bench.n_documents
    for batch in planted.batches(first=number * n, n_documents=n, per_batch=128):
        place = torch.arange(len(batch.document)) % bench.document_length
        drawn = mix(batch.document, salt=1).double() / 2**63
        kept = place < bench.document_length * bench.unequal**-drawn
        sums.add(crosscoder, batch.x[kept], document=batch.document[kept])
    return sums


def coverage(
    samples: list[ScalingSums], products: Tensor, truth: Tensor, *, target: int, bench: CoverageBench
) -> dict[str, float | int]:
    """Of one ratio of the base to the tuned model, with the tuned direction as the probe."""
    wanted = truth[target, TUNED, BASE]
    inside, widths = [], []
    for sums in samples:
        bounds = intervals(sums, products)
        low, high = (part[target, TUNED, BASE] for part in (bounds.nu_low, bounds.nu_high))
        known = (sums.documents.counts() >= bench.min_documents) & ~low.isnan()
        inside.append(((low <= wanted) & (wanted <= high))[known])
        widths.append((high - low)[known])
    cases = torch.cat(inside).double()
    return {
        "covered": float(cases.mean()) if len(cases) else float("nan"),
        "n_cases": len(cases),
        "median_width": float(torch.cat(widths).median()) if len(cases) else float("nan"),
    }
