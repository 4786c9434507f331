"""The delta table of a run with labels of the user's own."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.ensemble import ensemble_deltas

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.notebook.marked import Examples

Key = tuple[str, int]
"""Pair and latent."""


def relabelled(
    given: Mapping[Key, str | None],
    sides: Sequence[Sequence[str]],
    asked: Mapping[str, Sequence[int]],
    *,
    several: bool,
    draws: int,
    seed: int,
) -> pd.DataFrame:
    """The delta table; `sides` are the crosscoders of reference and treatment, `asked` their latents.

    `several`: an ensemble, whose intervals are over seeds.
    """
    labels = {name: [given.get((name, latent)) for latent in latents] for name, latents in asked.items()}
    counted = [[[label for label in labels[name] if label is not None] for name in side] for side in sides]
    missing = {name: given.count(None) for name, given in labels.items() if None in given}
    if missing:
        told = ", ".join(f"{count} of {name}" for name, count in missing.items())
        warnings.warn(f"without a label, so in no count and no total: {told} latents", stacklevel=3)
    if several:
        deltas = ensemble_deltas(*counted, draws=draws, seed=seed)
    else:
        deltas = category_deltas(counted[0][0], counted[1][0], draws=draws, seed=seed)
    deltas.attrs["n_unlabelled"] = missing
    return deltas


def given_labels(
    labels: Any, asked: Mapping[str, Sequence[int]], examples: Callable[[str, int], Examples]
) -> dict[Key, str | None]:
    """(pair, latent) -> label, from any form of `Run.relabel`; ValueError for other latents."""
    import pandas as pd

    match labels:
        case pd.DataFrame():
            chosen = _of_table(labels)
        case Mapping():
            chosen = _of_mapping(labels)
        case Callable():
            return {(p, j): _checked(labels(examples(p, j))) for p, latents in asked.items() for j in latents}
        case _:
            raise ValueError(
                f"labels are {type(labels).__name__}; give a function of a latent's examples, a mapping "
                "{(pair, latent): label}, or a table with columns pair, latent and label"
            )
    for pair, latent in chosen:
        if pair not in asked:
            raise ValueError(f"{pair!r} is no pair of this comparison; it has {', '.join(asked)}")
        if latent not in asked[pair]:
            raise ValueError(
                f"latent {latent} of {pair} is given a label and is not among the compared latents; "
                f"run.selected({pair!r}) lists those"
            )
    return chosen


def _of_table(table: pd.DataFrame) -> dict[Key, str | None]:
    column = next((name for name in ("label", "category") if name in table.columns), None)
    if column is None or not {"pair", "latent"} <= set(table.columns):
        raise ValueError(
            f"the table of labels has columns {', '.join(map(str, table.columns))}; it needs pair, latent "
            "and label (or category)"
        )
    keys = list(zip(table["pair"].astype(str), table["latent"].astype(int), strict=True))
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"the table of labels has latent {twice[1]} of {twice[0]} twice; leave one row")
    return dict(zip(keys, map(_checked, table[column]), strict=True))


def _of_mapping(labels: Mapping[Any, Any]) -> dict[Key, str | None]:
    chosen = {}
    for key, value in labels.items():
        match key, value:
            case str(), Mapping():
                chosen |= {(key, int(latent)): _checked(label) for latent, label in value.items()}
            case (str() as pair, latent), _:
                chosen[pair, int(latent)] = _checked(value)
            case _:
                raise ValueError(
                    f"the labels have key {key!r}, not {{(pair, latent): label}} or {{pair: {{...}}}}"
                )
    return chosen


def _checked(label: Any) -> str | None:
    """A label, or None for what is missing (None, NaN, empty)."""
    import pandas as pd

    if label is None or label is pd.NA or label == "" or label != label:
        return None
    if not isinstance(label, str):
        raise ValueError(f"label {label!r} is {type(label).__name__}; a label is text, or None for no label")
    return label
