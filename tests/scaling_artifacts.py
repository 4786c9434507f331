"""Small finished artifacts (tokens, two harvests, a crosscoder) for the tests of scale and documents."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser
from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.tokens import TokenKind, write_token_set
from crossdiff.settings import Settings

LAYER = 3


class Given(Settings):
    """Stands for the inputs of steps whose artifacts are laid ready; importable inside a SLURM job."""

    name: str


@dataclass(frozen=True)
class Artifacts:
    """Parents of a scale step."""

    folder: Path
    crosscoder: Crosscoder
    x: torch.Tensor
    document: torch.Tensor

    @property
    def parents(self) -> dict[str, Path]:
        names = ("tokens", "harvest_base", "harvest_tuned", "train", "scale")
        return {name: self.folder / name for name in names}


def random_crosscoder(n_latents: int, d_model: int, *, seed: int, threshold: float = 2.5) -> Crosscoder:
    """Random directions that differ between models; latent 3 never fires, 0 has no base direction."""
    generator = torch.Generator().manual_seed(seed)
    crosscoder = Crosscoder(DictionarySettings(n_latents=n_latents), n_models=2, d_model=d_model)
    crosscoder.initialise_(generator)
    with torch.no_grad():
        crosscoder.decoder += 0.3 * torch.randn(crosscoder.decoder.shape, generator=generator)
        crosscoder.decoder[0, 0] = 0
        crosscoder.decoder_bias += 0.1 * torch.randn(2, d_model, generator=generator)
        crosscoder.encoder_bias[3] = -100
        crosscoder.threshold.fill_(threshold)
    return crosscoder


def build(
    folder: Path,
    *,
    n_documents: int = 60,
    length: int = 40,
    d_model: int = 8,
    n_latents: int = 32,
    seed: int = 0,
) -> Artifacts:
    """Random activations of `n_documents` documents; BOS first, two template tokens next, then text."""
    generator = torch.Generator().manual_seed(seed)
    n_tokens = n_documents * length
    kind = torch.full((n_documents, length), int(TokenKind.TEXT), dtype=torch.uint8)
    kind[:, 0], kind[:, 1:3] = TokenKind.BOS, TokenKind.TEMPLATE
    tokens = write_token_set(
        folder / "tokens",
        documents=[(f"doc{n}", "test") for n in range(n_documents)],
        ids=torch.randint(0, 50, (n_tokens,), generator=generator),
        offsets=torch.arange(n_documents + 1) * length,
        kind=kind.flatten(),
    )
    x = 2 * torch.randn(n_tokens, 2, d_model, generator=generator) + 0.3
    for model, name in enumerate(("harvest_base", "harvest_tuned")):
        write_harvest(folder / name, tokens, {LAYER: x[:, model].contiguous()}, shard_tokens=500)
    crosscoder = random_crosscoder(n_latents, d_model, seed=seed + 1)
    x64 = x.double()
    crosscoder.normaliser = Normaliser.from_statistics(
        x64.mean(0), x64.var(0, correction=0), target_rms=float(d_model) ** 0.5
    )
    crosscoder.save(folder / "train" / "crosscoder")
    return Artifacts(folder, crosscoder, x, torch.arange(n_tokens) // length)
