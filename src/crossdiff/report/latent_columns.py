"""The columns of the latent table that the page shows, with their order and titles."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from numbers import Real
from typing import Any, Literal

from crossdiff.report.formatting import significant
from crossdiff.report.sources import PairSource


@dataclass(frozen=True)
class Column:
    """A shown column of the latent table, with its interval where the table has one.

    `first` (`lowest` or `highest`): the list can be ordered by it, with these latents first.
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
"""Columns in the page's order; the table's other columns follow under their names."""
NOT_SHOWN = re.compile(r"latent|kind|call|exclusive_to|beta_\w+|\w+_(?:low|high|baseprobe)")
"""Columns that are shown otherwise (call, bounds of intervals), or not (betas, base probe)."""


def shown(names: Iterable[str]) -> list[Column]:
    """`COLUMNS` among the names, then the other names outside `NOT_SHOWN`."""
    given = list(names)
    titled = {column.name for column in COLUMNS}
    further = [name for name in given if name not in titled and not NOT_SHOWN.fullmatch(name)]
    known = [column for column in COLUMNS if column.name in given]
    return known + [Column(name, name.replace("_", " ")) for name in further]


def columns(pairs: Iterable[PairSource]) -> list[dict[str, Any]]:
    """The shown columns of all pairs, for the page's script."""
    names = dict.fromkeys(
        name
        for pair in pairs
        for name, kind in pair.latents.dtypes.items()
        if kind.kind in "iuf"  # numbers
    )
    return [asdict(column) for column in shown(map(str, names))]


def figures_of(row: Mapping[Any, Any]) -> dict[str, float | int | None]:
    """The shown figures of one row of the latent table and their intervals; none of an empty row."""
    names = _figure_names(tuple(row))
    return {name: significant(row[name]) for name in names if isinstance(row.get(name), Real)}


@lru_cache
def _figure_names(names: tuple[Any, ...]) -> tuple[str, ...]:
    """The shown columns with their bounds; cached, since all rows of a table have the same columns."""
    return tuple(f"{column.name}{end}" for column in shown(names) for end in ("", "_low", "_high"))
