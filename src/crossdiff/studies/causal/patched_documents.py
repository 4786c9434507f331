"""Patching the base states of documents: the sets of latents that are added, and one document's KL."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from crossdiff.core.codes import SparseCode, code_norm
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.streaming import mix
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.models.generate import CausalModel
from crossdiff.studies.causal import CausalInputs
from crossdiff.studies.causal.patching import (
    MatchedSets,
    answer_places,
    difference_directions,
    divergence,
    matched_sets,
    patches,
    sets_of,
)

TOLERANCE = 0.2
"""Largest relative difference of a random set's density and energy from the exclusive set's."""


@dataclass(frozen=True)
class Sets:
    """Sets of latents that are added to the base states, as masks, and the match of the draws.

    members  [set, latent]: exclusive, the draws, `top_energy` and all latents
    scale    factor that gives the exclusive patch the draws' mean patch energy
    """

    draws: MatchedSets
    members: Tensor
    scale: float


def spread(n: int, wanted: int) -> Tensor:
    """`wanted` of n document numbers, in order, drawn by a hash; all where there are fewer.

    Corpora alternate (web, chat, web, chat, ...), so even steps could take one source only.
    """
    return mix(torch.arange(n)).argsort()[:wanted].sort().values


def document_rows(activations: PairedActivations, document: int) -> Tensor:
    """All rows of one document, masked ones too."""
    start, stop = activations.token_set.offsets[document : document + 2].tolist()
    return torch.arange(start, stop)


def patched_code(
    crosscoder: Crosscoder, activations: PairedActivations, rows: Tensor
) -> tuple[Tensor, SparseCode]:
    """Activations of one document, and its code at the tokens that the mask keeps (elsewhere empty)."""
    x = activations.read(rows).x.to(crosscoder.decoder.device)
    code = crosscoder.encode_normalised(crosscoder.normaliser.normalise(x))
    kept = activations.kept[rows].to(code.token.device)[code.token]
    return x, SparseCode(code.token[kept], code.latent[kept], code.value[kept], code.n_tokens, code.n_latents)


def codes_of(
    crosscoder: Crosscoder, activations: PairedActivations, documents: Tensor
) -> Iterator[SparseCode]:
    """`patched_code` of every document."""
    for document in documents.tolist():
        yield patched_code(crosscoder, activations, document_rows(activations, document))[1]


def choose_sets(
    inputs: CausalInputs,
    activations: PairedActivations,
    crosscoder: Crosscoder,
    *,
    chosen: Tensor,
    documents: Tensor,
) -> Sets | None:
    """Random sets matched on density and energy (sum of v^2) of latents in these documents; None without any.

    Matching code and decoder norm does not match the patch `f_j (d_j^t/s_t - d_j^b/s_b)`, which is large for
    exclusive latents by construction. So `top_energy` has as many other latents with the largest patch
    energy, and the exclusive patch is also added with the draws' energy. None where no chosen latent fires.
    """
    n_latents, directions = crosscoder.n_latents, difference_directions(crosscoder)
    norm = code_norm(crosscoder.decoder, crosscoder.settings.code_norm).double().cpu()
    n, squares = (torch.zeros(n_latents, dtype=torch.float64) for _ in range(2))
    for code in codes_of(crosscoder, activations, documents):
        n += torch.bincount(code.latent.cpu(), minlength=n_latents)
        squares.index_add_(0, code.latent.cpu(), code.value.double().square().cpu())
    others = n > 0
    if not bool(others[chosen].any()):
        return None
    others[chosen] = False
    draws = matched_sets(
        chosen,
        others.nonzero().flatten(),
        density=n,
        energy=squares * norm.square(),
        n_draws=inputs.n_draws,
        generator=torch.Generator().manual_seed(inputs.seed),
        tolerance=TOLERANCE,
    )
    patch_energy = squares * directions.double().square().sum(dim=1).cpu()
    top = torch.where(others, patch_energy, -1).topk(len(chosen)).indices
    members = sets_of([chosen, *draws.latents, top, torch.arange(n_latents)], n_latents=n_latents)
    codes = codes_of(crosscoder, activations, documents)
    return Sets(draws, members, scale=equal_energy(codes, directions, members[: 1 + inputs.n_draws]))


def equal_energy(codes: Iterable[SparseCode], directions: Tensor, members: Tensor) -> float:
    """Factor that brings the patch of the first set to the mean patch energy of all others."""
    energy = torch.zeros(len(members), dtype=torch.float64)
    for code in codes:
        added = patches(code, directions, members.to(code.value.device))
        energy += added.double().square().sum(dim=(1, 2)).cpu()
    return float((energy[1:].mean() / energy[0]).sqrt())


def one_document(
    inputs: CausalInputs,
    activations: PairedActivations,
    crosscoder: Crosscoder,
    document: int,
    *,
    tuned: CausalModel,
    sets: Sets,
) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor]]:
    """KL to the tuned model and patch energy [condition, token] (`evaluation.conditions`), and the places."""
    rows = document_rows(activations, document)
    x, code = patched_code(crosscoder, activations, rows)
    added = patches(code, difference_directions(crosscoder), sets.members.to(x.device))
    base, whole = x[None, :, 0], x[None, :, 1] - x[None, :, 0]
    added = torch.cat([torch.zeros_like(base), added[:-2], sets.scale * added[:1], added[-2:], whole])
    states = torch.cat([base + added[:-1], x[None, :, 1]])
    ids = activations.token_set.ids[rows]
    target = tuned.logits(ids, states[-1:], layer=inputs.layer)[0]
    parts = [
        divergence(target, tuned.logits(ids, part, layer=inputs.layer))
        for part in states.split(inputs.states_at_a_time)
    ]
    kept = activations.kept[rows].nonzero().flatten()
    answers = answer_places(activations.token_set.kind[rows], first=inputs.first)
    return torch.cat(parts).cpu(), added.square().sum(dim=-1).cpu(), (kept, answers)


def matching(draws: MatchedSets) -> dict[str, Any]:
    """The match of the random sets, for `causal.json`."""
    return {
        "n_draws": len(draws.latents),
        "draws_within_tolerance": int(draws.within(TOLERANCE).sum()),
        "tolerance": TOLERANCE,
        "latents_alike": float(draws.alike.mean()),
        "density_ratio": [float(draws.density_ratio.min()), float(draws.density_ratio.max())],
        "energy_ratio": [float(draws.energy_ratio.min()), float(draws.energy_ratio.max())],
    }
