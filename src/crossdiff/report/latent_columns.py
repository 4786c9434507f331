"""Which columns of the latent table the page shows for a latent, in which order and under which title."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Any, Literal

from crossdiff.report.formatting import significant
from crossdiff.report.sources import PairSource


@dataclass(frozen=True)
class Column:
    """A column of the latent table that the page shows, with its interval where the table has one.

    `first` (`lowest` or `highest`): the list can be ordered by it, these latents first.
    """

    name: str
    title: str
    first: Literal["lowest", "highest"] | None = None


COLUMNS = (
    Column("nu_error", "nu error", "lowest"),
    Column("nu_reconstruction", "nu reconstruction"),
    Column("nu_activation", "nu activation"),
    Column("density", "Density", "highest"),
    Column("largest_code", "Largest code", "highest"),
    Column("n_active", "Tokens active"),
    Column("n_documents", "Documents"),
    Column("delta_norm", "delta_norm", "highest"),
    Column("drift", "Drift, log"),
    Column("norm_base", "Norm, base"),
    Column("norm_tuned", "Norm, tuned"),
    Column("decoder_cosine", "Cosine of directions"),
)
"""In the page's order. Other columns of the table follow under their names; a line here adds a title."""
NOT_SHOWN = re.compile(r"latent|kind|call|exclusive_to|beta_\w+|\w+_(?:low|high|baseprobe)")
"""Shown in another form (the call, ends of intervals), or too many for a page (betas, the base probe)."""


def shown(names: Iterable[str]) -> list[Column]:
    """`COLUMNS` that are among the names, then the other names that are not in `NOT_SHOWN`."""
    given = list(names)
    titled = {column.name for column in COLUMNS}
    further = [name for name in given if name not in titled and not NOT_SHOWN.fullmatch(name)]
    known = [column for column in COLUMNS if column.name in given]
    return known + [Column(name, name.replace("_", " ")) for name in further]


def columns(pairs: Iterable[PairSource]) -> list[dict[str, Any]]:
    """What the pages' tables show, as the page's script reads it."""
    names = dict.fromkeys(
        name
        for pair in pairs
        for name, kind in pair.latents.dtypes.items()
        if kind.kind in "iuf"  # numbers
    )
    return [asdict(column) for column in shown(map(str, names))]


def figures_of(row: Mapping[Any, Any]) -> dict[str, float | int | None]:
    """The shown figures of one row of the latent table and their intervals; none of an empty row."""
    names = [f"{column.name}{end}" for column in shown(row) for end in ("", "_low", "_high")]
    return {name: significant(row[name]) for name in names if isinstance(row.get(name), Real)}
