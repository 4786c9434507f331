"""The causal check (method.md section 7, Minder): patches by latents, and matched random sets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Float64, Int, Integer
from torch import Tensor

from crossdiff.core.codes import SparseCode
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import raw_directions
from crossdiff.data.tokens import TokenKind


def difference_directions(crosscoder: Crosscoder) -> Float[Tensor, "latent d_model"]:
    """`d_j^tuned / s_tuned - d_j^base / s_base` in raw activation units, without means and biases."""
    raw = raw_directions(crosscoder)
    return raw[:, 1] - raw[:, 0]


def patches(
    code: SparseCode,
    directions: Float[Tensor, "latent d_model"],
    members: Bool[Tensor, "set latent"],
) -> Float[Tensor, "set token d_model"]:
    """`sum_{j in S} f_j (d_j^tuned / s_tuned - d_j^base / s_base)` for every set S, active entries only."""
    added = directions.new_zeros(len(members), code.n_tokens, directions.shape[1])
    for patch, member in zip(added, members, strict=True):
        kept = member[code.latent]
        rows = code.value[kept, None] * directions[code.latent[kept]]
        patch.index_add_(0, code.token[kept], rows)
    return added


def divergence(
    tuned: Float[Tensor, "place vocabulary"], patched: Float[Tensor, "state place vocabulary"]
) -> Float[Tensor, "state place"]:
    """KL(tuned || patched) of the next-token distributions, in nats, from logits."""
    target = tuned.log_softmax(dim=-1)
    return (target.exp() * (target - patched.log_softmax(dim=-1))).sum(dim=-1)


def sets_of(latents: Sequence[Int[Tensor, "_"]], *, n_latents: int) -> Bool[Tensor, "set latent"]:
    """Membership masks of lists of latents."""
    members = torch.zeros(len(latents), n_latents, dtype=torch.bool)
    for row, chosen in zip(members, latents, strict=True):
        row[chosen] = True
    return members


def answer_places(kind: Integer[Tensor, " token"], *, first: int) -> Int[Tensor, " place"]:
    """Places of one document whose next token is among the `first` tokens of the chat's last message.

    Messages are the runs of tokens between control tokens of the template; a document with fewer than two
    (plain text, or a chat cut before its answer) has none. The last message counts as the answer.
    """
    content = (kind != TokenKind.TEMPLATE) & (kind != TokenKind.BOS)
    edges = torch.diff(content.to(torch.int8), prepend=torch.zeros(1, dtype=torch.int8))
    starts = (edges == 1).nonzero().flatten()
    if len(starts) < 2 or not bool((kind == TokenKind.TEMPLATE).any()):
        return torch.zeros(0, dtype=torch.int64)
    start = int(starts[-1])
    length = int(content[start:].to(torch.int64).cumprod(0).sum())
    return torch.arange(start - 1, start - 1 + min(first, length))


TRIES = 40


@dataclass(frozen=True)
class MatchedSets:
    """Draws of as many latents as the chosen set has.

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

    Without one it is the nearest in log density and log energy. Of up to `TRIES` tries per draw
    the first with sums within the tolerance is taken, else the closest.
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
