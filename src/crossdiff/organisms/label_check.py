"""The share of latents whose category is that of their documents.

This truth is joined after assignment, and nothing that labels latents may read it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


NO_CATEGORY = (None, "other", "uninterpretable")


def label_check(
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[str, pd.DataFrame],
    document_categories: Mapping[str, str],
) -> dict[str, Any]:
    """Figures over all exclusive latents, over those of the tuned models, and per pair.

    Where drifted latents were annotated, over these too, and over the shared controls beside them.

    labelled = has a category, not `other`, `uninterpretable` or no answer; right = that category dominates
    the latent's top documents (ties all count). `rows` are annotations, `examples` each pair's table of
    examples.
    """
    dominating = {
        (pair, int(str(latent))): _dominating(part["document_id"], document_categories)
        for pair, table in examples.items()
        for latent, part in table[(table.subset == "explain") & (table.source == "top")].groupby("latent")
    }
    exclusive = [row for row in rows if row["role"].startswith("exclusive")]
    tuned = [row for row in exclusive if row["role"] == "exclusive_tuned"]
    groups = {"exclusive": exclusive, "exclusive_tuned": tuned}
    groups |= {pair: [row for row in tuned if row["pair"] == pair] for pair in examples}
    if any(row["role"] == "drifted" for row in rows):
        shared = ("drifted", "control_shared")
        groups |= {role: [row for row in rows if row["role"] == role] for role in shared}
    return {name: _figures(part, dominating) for name, part in groups.items()}


def _dominating(documents: Any, document_categories: Mapping[str, str]) -> set[str]:
    counts = Counter(document_categories[name] for name in documents if name in document_categories)
    most = max(counts.values(), default=0)
    return {name for name, count in counts.items() if count == most}


def _figures(
    rows: Sequence[Mapping[str, Any]], dominating: Mapping[tuple[str, int], set[str]]
) -> dict[str, Any]:
    labelled = [row for row in rows if row["category"] not in NO_CATEGORY]
    right = sum(row["category"] in dominating.get((row["pair"], row["latent"]), ()) for row in labelled)
    return {
        "n": len(rows),
        "n_labelled": len(labelled),
        "n_right": right,
        "share_labelled": len(labelled) / len(rows) if rows else None,
        "share_right": right / len(labelled) if labelled else None,
    }
