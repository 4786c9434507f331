"""Random sets of latents that match a given set in size, density and energy (method.md section 7)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float64, Int
from torch import Tensor

TRIES = 40


@dataclass(frozen=True)
class MatchedSets:
    """Draws of as many latents as were chosen.

    alike          share of a draw's latents whose own density and energy are both within the tolerance of
                   those of the latent that they stand for
    density_ratio  summed density of a draw over that of the chosen set; energy_ratio likewise
    """

    latents: Int[Tensor, "draw chosen"]
    alike: Float64[Tensor, " draw"]
    density_ratio: Float64[Tensor, " draw"]
    energy_ratio: Float64[Tensor, " draw"]

    def within(self, tolerance: float) -> Bool[Tensor, " draw"]:
        """Draws whose summed density and energy are both within `tolerance` of the chosen set's."""
        ratios = torch.stack([self.density_ratio, self.energy_ratio])
        return ((ratios - 1).abs() <= tolerance).all(dim=0)


def matched_sets(
    chosen: Int[Tensor, " chosen"],
    pool: Int[Tensor, " pool"],
    *,
    density: Float64[Tensor, " latent"],
    energy: Float64[Tensor, " latent"],
    n_draws: int,
    generator: torch.Generator,
    tolerance: float = 0.2,
) -> MatchedSets:
    """For every chosen latent a random unused one of `pool` within `tolerance` in density and in energy.

    Where none is left the nearest in log density and log energy stands in. Of up to `TRIES` tries per draw
    the first is taken whose sums are within the tolerance, else the one that misses by least.
    """
    if len(pool) < len(chosen):
        raise ValueError(
            f"{len(chosen)} latents are to be matched with {len(pool)} other alive ones; choose a stricter "
            "selection (fewer exclusive latents), or a larger dictionary"
        )
    place = torch.stack([density, energy], dim=1).clamp(min=1e-300).log()
    distance = (place[chosen, None] - place[None, pool]).abs().amax(dim=2)
    near = distance <= torch.log(torch.tensor(1 + tolerance))
    totals = torch.stack([density, energy])
    best = [
        _closest_of_tries(
            distance, near, totals=totals, chosen=chosen, pool=pool, generator=generator, tolerance=tolerance
        )
        for _ in range(n_draws)
    ]
    latents = torch.stack([draw for draw, _ in best])
    ratios = totals[:, latents].sum(dim=2) / totals[:, chosen].sum(dim=1, keepdim=True)
    return MatchedSets(latents, torch.stack([alike for _, alike in best]), ratios[0], ratios[1])


def _closest_of_tries(
    distance: Tensor,
    near: Tensor,
    *,
    totals: Tensor,
    chosen: Tensor,
    pool: Tensor,
    generator: torch.Generator,
    tolerance: float,
) -> tuple[Tensor, Tensor]:
    wanted = totals[:, chosen].sum(dim=1)
    best, alike, missed = pool[: len(chosen)], torch.tensor(0.0, dtype=torch.float64), float("inf")
    for _ in range(TRIES):
        picked, close = _one_draw(distance, near, generator)
        off = float((totals[:, pool[picked]].sum(dim=1) / wanted - 1).abs().max())
        if off < missed:
            best, alike, missed = pool[picked], close, off
        if missed <= tolerance:
            break
    return best, alike


def _one_draw(distance: Tensor, near: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Places in the pool, one per chosen latent, those with fewest choices first (ties at random)."""
    free = torch.ones(distance.shape[1], dtype=torch.bool)
    picked = torch.zeros(len(distance), dtype=torch.int64)
    shuffled = torch.randperm(len(distance), generator=generator)
    order = shuffled[near.sum(dim=1)[shuffled].argsort(stable=True)]
    n_close = 0
    for i in order.tolist():
        options = (near[i] & free).nonzero().flatten()
        if len(options):
            picked[i] = options[torch.randint(len(options), (1,), generator=generator)]
            n_close += 1
        else:
            picked[i] = torch.where(free, distance[i], torch.inf).argmin()
        free[picked[i]] = False
    return picked, torch.tensor(n_close / max(len(distance), 1), dtype=torch.float64)
