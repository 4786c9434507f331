"""The latents whose documents are read: exclusive ones and shared controls; and their codes alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.core.axes import Activations
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.exclusive_call import Side, exclusive_latents

if TYPE_CHECKING:
    import pandas as pd

Role = Literal["exclusive_tuned", "exclusive_base", "control_shared"]
ROLES: tuple[Role, ...] = ("exclusive_tuned", "exclusive_base", "control_shared")


@dataclass(frozen=True)
class Chosen:
    """Latents with their roles, by role and number; `not_taken` counts exclusive ones beyond the limit."""

    latents: list[tuple[int, Role]]
    not_taken: dict[Side, int]


def choose_latents(table: pd.DataFrame, *, n_controls: int, max_latents: int, seed: int) -> Chosen:
    """All exclusive latents of both sides (at most `max_latents` each) and a random draw of shared controls.

    Controls are latents with norms in the shared bin that were called not exclusive, so that both the norms
    and latent scaling say they belong to both models.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[tuple[int, Role]] = []
    not_taken: dict[Side, int] = {}
    sides: tuple[tuple[Side, Role], ...] = (("tuned", "exclusive_tuned"), ("base", "exclusive_base"))
    for side, role in sides:
        latents = exclusive_latents(table, side)
        taken = _draw(latents, max_latents, generator)
        not_taken[side] = len(latents) - len(taken)
        found.extend((latent, role) for latent in taken)
    shared = (table["kind"] == "shared") & (table["call"] == "not_exclusive")
    controls = [j for j, is_shared in enumerate(shared) if is_shared]
    found.extend((latent, "control_shared") for latent in _draw(controls, n_controls, generator))
    return Chosen(found, not_taken)


def codes_of(
    crosscoder: Crosscoder, x: Activations, latents: Int[Tensor, " chosen"]
) -> Float[Tensor, "token chosen"]:
    """Inference codes of some latents of raw activations: `v > threshold` kept, the others never computed."""
    device = crosscoder.decoder.device
    latents = latents.to(device)
    xn = crosscoder.normaliser.normalise(x.to(device, crosscoder.decoder.dtype))
    with torch.no_grad():
        code = crosscoder.positive_code(xn, latents)
        return torch.where(code * crosscoder.code_norm()[latents] > crosscoder.threshold, code, 0)


def _draw(latents: list[int], count: int, generator: torch.Generator) -> list[int]:
    if len(latents) <= count:
        return latents
    order = torch.randperm(len(latents), generator=generator)[:count]
    return sorted(latents[i] for i in order.tolist())
