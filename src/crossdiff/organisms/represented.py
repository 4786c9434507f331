"""The represented size of every planted behaviour: the part of its mean activation that pt does not predict.

A behaviour is planted as a number of showings; a model may learn less of it, and a crosscoder can only find
what the activations hold. Per tuned model m and behaviour b:

    r_m(t)  = a_m(t) - ridge regression of a_m on a_pt, at token t
    u_mb    = mean of r_m over the tokens of b's showings, minus the mean of these means over all behaviours
    energy  = u_mb (even documents) . u_mb (odd documents): |u_mb|^2 without the noise of a finite mean

The mean over behaviours is common to all showings (an answer instead of a page of the web). A category's
represented share is the energy of its behaviours over that of all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.organisms.language import BAG_SLOTS, CONTENT, Behaviour, Category

if TYPE_CHECKING:
    from crossdiff.data.tokens import TokenSet

Batches = Callable[[], Iterable[tuple[Tensor, Tensor]]]
"""Starts a pass over all tokens: their numbers [token], and activations [token, model, d_model], pt first."""
LEAST_CONTENT = 3
"""Shared content words from which a sentence counts as a showing, as in `Behaviour.is_shown`."""


@dataclass(frozen=True)
class Energies:
    """`energy` is NaN for a behaviour that one half of the documents never shows.

    energy        squared norm of each tuned model's mean residual, in the units of the activations squared
    unexplained   share of each tuned model's variance that ridge regression from pt leaves
    n_tokens      tokens of each behaviour's showings
    """

    energy: Float[Tensor, "tuned behaviour"]
    unexplained: Float[Tensor, " tuned"]
    n_tokens: Int[Tensor, " behaviour"]


def behaviour_of_tokens(
    tokens: TokenSet, language: Sequence[Category], document_categories: Mapping[str, str]
) -> Int[Tensor, " token"]:
    """Number of the behaviour that each token's sentence shows, in the language's order; -1 for none.

    A sentence of a chat shows a behaviour of its document's category when the bag holds all of its (at least
    three) shared content words; a sentence that fits two bags shows neither.
    """
    first = 0
    bags: dict[str, list[tuple[int, frozenset[str]]]] = {}
    for category in language:
        bags[category.name] = [
            (first + index, _bag(behaviour)) for index, behaviour in enumerate(category.behaviours)
        ]
        first += len(category.behaviours)
    words = [text.strip() for text in tokens.token_strings(range(int(tokens.ids.max()) + 1))]
    ids, offsets = tokens.ids.tolist(), tokens.offsets.tolist()
    shown = torch.full((tokens.n_tokens,), -1, dtype=torch.int64)
    for document, name in enumerate(tokens.document_ids):
        if name.startswith("chat") and name in document_categories:
            start = offsets[document]
            said = [words[token] for token in ids[start : offsets[document + 1]]]
            for place, end, behaviour in _showings(said, bags[document_categories[name]]):
                shown[start + place : start + end] = behaviour
    return shown


def _bag(behaviour: Behaviour) -> frozenset[str]:
    return frozenset(word for slot in BAG_SLOTS for word in behaviour.bag[slot])


def _showings(
    words: Sequence[str], bags: Sequence[tuple[int, frozenset[str]]]
) -> Iterable[tuple[int, int, int]]:
    """(first token, token after the last, behaviour) of every sentence that shows exactly one behaviour."""
    start = 0
    for place, word in enumerate(words):
        if word not in {".", "?"} and not word.startswith("<"):
            continue
        content = [said for said in words[start:place] if said in CONTENT]
        shown = [number for number, bag in bags if bag.issuperset(content)]
        if word == "." and len(content) >= LEAST_CONTENT and len(shown) == 1:
            yield start, place + 1, shown[0]
        start = place + 1


def behaviour_energies(
    batches: Batches,
    behaviour: Int[Tensor, " token"],
    half: Int[Tensor, " token"],
    *,
    n_behaviours: int,
    ridge: float,
) -> Energies:
    """The energies of the module's docstring, in float64 and two passes.

    `half` is 0 or 1, by document. `ridge` is the penalty over pt's mean variance per dimension and token.
    """
    mean, weights, unexplained = _regression(batches, ridge)
    n_models, d_model = mean.shape
    sums = torch.zeros(n_models - 1, 2, n_behaviours, d_model, dtype=torch.float64)
    counts = torch.zeros(2, n_behaviours, dtype=torch.int64)
    for rows, x in batches():
        known = behaviour[rows] >= 0
        centred = x[known].double() - mean
        place = half[rows][known] * n_behaviours + behaviour[rows][known]
        counts.view(-1).index_add_(0, place, torch.ones_like(place))
        for model in range(n_models - 1):
            residual = centred[:, model + 1] - centred[:, 0] @ weights[model]
            sums[model].view(-1, d_model).index_add_(0, place, residual)
    number = counts[None, :, :, None]
    means = sums / number.where(number > 0, torch.nan)
    contrasts = means - means.nanmean(2, keepdim=True)
    return Energies((contrasts[:, 0] * contrasts[:, 1]).sum(-1), unexplained, counts.sum(0))


def _regression(batches: Batches, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Means [model, d], weights from pt [tuned, d, d], share of variance left [tuned]."""
    n, total, gram = 0, torch.zeros(()), torch.zeros((), dtype=torch.float64)
    n_models = d_model = 0
    for _, x in batches():
        n_models, d_model = x.shape[1:]
        flat = x.double().flatten(1)
        n, total, gram = n + len(x), total + flat.sum(0), gram + flat.T @ flat
    if not n:
        raise ValueError("the mask keeps no token; loosen it")
    mean = total / n
    covariance = (
        (gram / n - torch.outer(mean, mean)).unflatten(0, (n_models, -1)).unflatten(2, (n_models, -1))
    )
    base = covariance[0, :, 0]
    penalty = ridge * base.diagonal().mean() * torch.eye(d_model, dtype=torch.float64)
    cross = covariance[0, :, 1:].movedim(1, 0)
    weights = torch.linalg.solve(base + penalty, cross)
    variance = torch.stack([covariance[m, :, m].trace() for m in range(1, n_models)])
    explained = 2 * (weights * cross).sum((1, 2)) - (weights * (base @ weights)).sum((1, 2))
    return mean.unflatten(0, (n_models, d_model)), weights, 1 - explained / variance


def represented_table(language: Sequence[Category], energies: Energies) -> list[dict[str, Any]]:
    """Per category: represented shares in the reference and the treatment, and their relative change.

    Behaviours without an energy are left out of both shares. A change is None where the reference's share is
    not positive or the category has no energy.
    """
    known = energies.energy.isfinite().all(0)
    energy = energies.energy.where(known, 0.0)
    total = energy.sum(1)
    rows, first = [], 0
    for category in language:
        columns = slice(first, first := first + len(category.behaviours))
        reference = treatment = change = None
        if bool(known[columns].any()):
            reference, treatment = (energy[:, columns].sum(1) / total).tolist()
            change = treatment / reference - 1 if reference > 0 else None
        rows.append(
            {
                "name": category.name,
                "group": category.group,
                "share_reference": reference,
                "share_treatment": treatment,
                "change": change,
                "n_tokens": int(energies.n_tokens[columns].sum()),
                "n_behaviours": len(category.behaviours),
                "n_without_energy": int((~known[columns]).sum()),
            }
        )
    return rows
