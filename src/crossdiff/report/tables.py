"""Tables of the page: numbers, also those of figures, as rows that can be sorted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossdiff.report.delta_rows import DeltaRow, ordered
from crossdiff.report.formatting import change_text, number, readable, share, visible

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Column:
    """A heading; numeric columns are set to the right and sort by value; an interval is two CSV columns."""

    title: str
    numeric: bool = False
    interval: bool = False


@dataclass(frozen=True)
class Cell:
    """A cell's text, sort value, link, and the value in a CSV (by default `sort`).

    `pieces` (`example_line`): shown by the page in place of the text, active tokens marked.
    """

    text: str
    sort: float | str | None = None
    href: str | None = None
    value: float | tuple[float, float] | None = None
    pieces: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class Row:
    """Cells in column order; `kind` is the row's CSS class."""

    cells: tuple[Cell, ...]
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Columns and rows, drawn by the template `grid`."""

    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def plain(titles: Sequence[str], rows: Iterable[Sequence[Any]], *, numeric: Sequence[int] = ()) -> Table:
    """A table of plain values; `numeric` names the number columns by position."""
    columns = tuple(Column(title, index in numeric) for index, title in enumerate(titles))
    return Table(columns, tuple(Row(tuple(_cell(value) for value in row)) for row in rows))


def _cell(value: Any) -> Cell:
    if isinstance(value, Cell):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool):
        return Cell(number(value), sort=value if value == value else None)
    return Cell("–" if value is None else visible(str(value)))


def deltas(
    rows: Sequence[DeltaRow],
    *,
    planted: dict[str, float] | None,
    represented: dict[str, float] | None = None,
) -> Table:
    """The delta table with counts, shares, interval, p and q, and true changes where known."""
    truths = {title: truth for title, truth in (("Planted", planted), ("Represented", represented)) if truth}
    titles = ["Category", "Change", "95 % interval", "Sign", "Treatment", "Reference"]
    titles += ["Share t.", "Share r.", "p", "q"]
    against_seeds = any(row.p_seed_null == row.p_seed_null for row in rows)
    if against_seeds:
        titles.append("p, seeds")
    several = any(row.per_run for row in rows)
    if several:
        titles += ["Per crosscoder", "Runs agree", "Against the median"]
    titles += truths
    columns = tuple(
        Column(title, numeric=index not in (0, 3), interval=index == 2) for index, title in enumerate(titles)
    )
    body = []
    for row in ordered(list(rows)):
        cells = _delta_cells(row)
        if against_seeds:
            cells.append(Cell(number(row.p_seed_null, 2), sort=_sortable(row.p_seed_null)))
        if several:
            cells += _cells_over_seeds(row)
        for truth in truths.values():
            change = None if row.is_class else truth.get(row.name)
            cells.append(Cell("–" if change is None else change_text(change), sort=change))
        body.append(Row(tuple(cells), kind=row.level))
    return Table(columns, tuple(body))


def _cells_over_seeds(row: DeltaRow) -> list[Cell]:
    """Cells with every crosscoder's counts, the share of runs with the sign, and the check by the median."""
    treatment, reference = row.per_run or ("", "")
    agree = "–" if row.runs_agree != row.runs_agree else share(row.runs_agree)
    check = {"yes": "holds", "no": "does not hold"}.get(row.holds_against_median, "–")
    return [
        Cell(f"{treatment} : {reference}"),
        Cell(agree, sort=_sortable(row.runs_agree)),
        Cell(check),
    ]


def _delta_cells(row: DeltaRow) -> list[Cell]:
    (reference, treatment), (n_reference, n_treatment) = row.counts, row.totals
    share_reference, share_treatment = row.shares
    return [
        Cell(readable(row.name)),
        Cell(row.text, sort=_sortable(row.value), value=math.inf if row.is_new else row.change),
        Cell(row.interval_text(), sort=_sortable(row.interval[0]), value=row.interval),
        Cell(row.sign),
        Cell(f"{treatment} of {n_treatment}", sort=treatment),
        Cell(f"{reference} of {n_reference}", sort=reference),
        Cell(share(share_treatment), sort=_sortable(share_treatment)),
        Cell(share(share_reference), sort=_sortable(share_reference)),
        Cell(number(row.p_value, 2), sort=_sortable(row.p_value)),
        Cell(number(row.q_value, 2), sort=_sortable(row.q_value)),
    ]


def _sortable(value: float) -> float | None:
    return None if value != value else float(value)


def exclusive(pair: str, frame: pd.DataFrame, columns: Sequence[str]) -> Table:
    """Exclusive latents with the named columns, linked to the latents."""
    titles = ["Latent", "Model", *(column.replace("_", " ") for column in columns)]
    rows = [
        [
            Cell(
                str(int(row["latent"])),
                sort=float(row["latent"]),
                href=f"#latent-{pair}-{int(row['latent'])}",
            ),
            row["exclusive_to"],
            *(float(row[column]) for column in columns),
        ]
        for row in frame.to_dict("records")
    ]
    return plain(titles, rows, numeric=[0, *range(2, len(titles))])
