"""Latents of one crosscoder with near directions, counted as one concept in a comparison's multiverse."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

MIN_COSINE = 0.35
"""Least cosine of two latents of one concept, far below that of twins over seeds (0.7), because the parts of
a concept that a crosscoder splits have different directions. The demo's 196 to 254 exclusive latents per
crosscoder are 87 to 147 concepts."""


def merged_labels(rows: Sequence[Mapping[str, Any]], crosscoder: Path) -> list[str]:
    """One label for every concept among a crosscoder's answered latents.

    A concept is a set of latents joined by a chain of decoder directions (tuned model) with `MIN_COSINE`. It
    has the commonest category of its latents, on a tie that of the lowest latent.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    from crossdiff.core.checkpoint import WEIGHTS, unit_directions
    from crossdiff.core.latent_table import TUNED

    if not rows:
        return []
    ordered = sorted(rows, key=lambda row: row["latent"])
    unit = unit_directions(crosscoder / WEIGHTS, [row["latent"] for row in ordered], model=TUNED).double()
    _, concepts = connected_components(csr_array((unit @ unit.T >= MIN_COSINE).numpy()), directed=False)
    labels: dict[int, list[str]] = defaultdict(list)
    for concept, row in zip(concepts.tolist(), ordered, strict=True):
        labels[concept].append(row["category"])
    return [Counter(categories).most_common(1)[0][0] for categories in labels.values()]
