"""The page of `action=compare`: runs by settings, figures of merit, deltas and their signs side by side."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff.report import tables
from crossdiff.report.delta_rows import SignStability, sign_stability
from crossdiff.report.figures.curves import over_setting, signs
from crossdiff.report.figures.heat_maps import multiverse
from crossdiff.report.formatting import number, readable, share, visible
from crossdiff.report.page import fill
from crossdiff.report.runs import Run, Setting, sortable, varying_settings
from crossdiff.report.style import height_of

AXES = {
    "layer": ("layer",),
    "dictionary size": ("dictionary.n_latents",),
    "sparsity": ("sparsity", "sparsity.k", "sparsity.penalty"),
    "seed": ("seed", "organism.seed"),
}
"""Axis of the page -> its settings in summaries."""
MERITS = {
    "fve_base": "FVE, base",
    "fve_tuned": "FVE, tuned",
    "l0": "L0",
    "dead_share": "Dead share",
    "n_exclusive": "Exclusive to tuned",
    "n_exclusive_base": "Exclusive to base",
    "n_labelled": "Labelled",
}
"""Figures of a pair in summary.json, with their titles."""


def render(runs: Sequence[Run], *, title: str, folder: Path) -> str:
    """The page as HTML text; links to the runs' own reports are relative to `folder`."""
    varying = varying_settings(runs)
    drawn: dict[str, Any] = {}
    charts = [
        _over(axis, values, runs, drawn)
        for axis, names in AXES.items()
        if len(set(values := [_axis_value(run, names, varying) for run in runs])) > 1
    ]
    compared = [_comparison(pairs, runs, varying, drawn) for pairs in _comparisons(runs)]
    common = {name: value for run in runs[:1] for name, value in run.settings.items() if name not in varying}
    return fill(
        "runs.html.j2",
        drawn,
        title=title,
        verdict=visible(_verdict(runs, varying)),
        missing=[run.name for run in runs if not run.settings],
        runs=_runs_table(runs, varying, folder),
        charts=charts,
        comparisons=compared,
        common=tables.plain(["Setting", "Value"], [(name, _text(value)) for name, value in common.items()]),
    )


def _verdict(runs: Sequence[Run], varying: Sequence[str]) -> str:
    differ = f"they differ in {', '.join(varying)}" if varying else "no recorded setting differs"
    return f"{len(runs)} runs side by side; {differ}."


def _text(value: Setting) -> str:
    return "–" if value is None else number(value) if isinstance(value, bool | float) else str(value)


def _axis_value(run: Run, names: Sequence[str], varying: Sequence[str]) -> str:
    """The run's values of an axis' varying settings, as text."""
    return " ".join(_text(run.settings.get(name)) for name in names if name in varying)


def label(run: Run, varying: Sequence[str]) -> str:
    """A short label of the run: its values on the axes, else its name."""
    parts = [f"{axis} {value}" for axis, names in AXES.items() if (value := _axis_value(run, names, varying))]
    others = set(varying) - {name for names in AXES.values() for name in names}
    return ", ".join(parts) if parts and not others else run.name


def _runs_table(runs: Sequence[Run], varying: Sequence[str], folder: Path) -> tables.Table:
    """One row per run and pair: varying settings, then the figures of merit."""
    titles = ["Run", *varying, "Pair", *MERITS.values()]
    rows = [
        [
            tables.Cell(visible(run.name), href=os.path.relpath(run.folder / "report.html", folder)),
            *(tables.Cell(visible(_text(value)), sort=_sort(value)) for value in _values(run, varying)),
            pair,
            *(_merit(name, figures.get(name)) for name in MERITS),
        ]
        for run in runs
        for pair, figures in run.pairs.items()
    ]
    numeric = [
        index
        for index, name in enumerate(["", *varying])
        if index and all(isinstance(run.settings.get(name), int | float) for run in runs)
    ]
    first = len(varying) + 2
    return tables.plain(titles, rows, numeric=[*numeric, *range(first, first + len(MERITS))])


def _values(run: Run, names: Sequence[str]) -> list[Setting]:
    return [run.settings.get(name) for name in names]


def _sort(value: Setting) -> float | str | None:
    kind, size, text = sortable(value)
    return (None, size, text)[kind]


def _merit(name: str, value: float | None) -> tables.Cell:
    text = share(value) if name == "dead_share" else number(value)
    return tables.Cell(text, sort=value)


def _over(axis: str, values: list[str], runs: Sequence[Run], drawn: dict[str, Any]) -> dict[str, Any]:
    """The figures of merit over one axis, with the table twin of means."""
    name = f"over_{axis.replace(' ', '_')}"
    pairs = list(dict.fromkeys(pair for run in runs for pair in run.pairs))
    order = sorted(range(len(runs)), key=lambda index: _order(values[index]))
    ordered = [values[index] for index in order]
    panels = {
        title: {pair: [runs[index].pairs.get(pair, {}).get(merit) for index in order] for pair in pairs}
        for merit, title in MERITS.items()
    }
    panels = {title: series for title, series in panels.items() if any(_known(series[p]) for p in pairs)}
    figure = drawn[name] = over_setting(ordered, names=[runs[i].name for i in order], panels=panels)
    rows = [
        (title, pair, *(_mean_at(value, ordered, series[pair]) for value in dict.fromkeys(ordered)))
        for title, series in panels.items()
        for pair in pairs
    ]
    columns = [f"{axis} {value}" for value in dict.fromkeys(ordered)]
    table = tables.plain(["Figure", "Pair", *columns], rows, numeric=range(2, len(columns) + 2))
    return {
        "name": name,
        "title": f"Over {axis}",
        "caption": f"A point per run and pair; lines join the means over the runs that share the {axis}.",
        "height": height_of(figure),
        "table": table,
    }


def _order(value: str) -> tuple[bool, float, str]:
    """Numbers by size before texts."""
    try:
        return (False, float(value), value)
    except ValueError:
        return (True, 0.0, value)


def _known(values: Sequence[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _mean_at(value: str, at: Sequence[str], figures: Sequence[float | None]) -> float | None:
    known = _known([figure for where, figure in zip(at, figures, strict=True) if where == value])
    return sum(known) / len(known) if known else None


def _comparisons(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """Distinct (reference, treatment) of the runs."""
    return list(dict.fromkeys(run.compared for run in runs if run.compared is not None))


def _comparison(
    pairs: tuple[str, str], runs: Sequence[Run], varying: Sequence[str], drawn: dict[str, Any]
) -> dict[str, Any]:
    """Deltas of every run that compared these pairs, and the sign stability of every category."""
    of_pairs = [run for run in runs if run.compared == pairs]
    choices = [label(run, varying) for run in of_pairs]
    names = list(dict.fromkeys((row.name, row.level) for run in of_pairs for row in run.deltas))
    names.sort(key=lambda name_level: name_level[1] != "class")
    stability = {
        name_level: sign_stability([run.delta(*name_level) for run in of_pairs]) for name_level in names
    }
    key = f"{pairs[0]}_{pairs[1]}".replace(" ", "_")
    values = [
        [row.change if (row := run.delta(*name_level)) else None for run in of_pairs] for name_level in names
    ]
    heat = drawn[f"deltas_{key}"] = multiverse([name for name, _ in names], choices, values)
    bars = drawn[f"signs_{key}"] = signs({name: stability[name, level] for name, level in names})
    return {
        "key": key,
        "reference": pairs[0],
        "treatment": pairs[1],
        "n_runs": len(of_pairs),
        "heat": {"name": f"deltas_{key}", "height": height_of(heat)},
        "bars": {"name": f"signs_{key}", "height": height_of(bars)},
        "deltas": _deltas_table(names, of_pairs, choices),
        "signs": _signs_table(stability),
    }


def _deltas_table(names: Sequence[tuple[str, str]], runs: Sequence[Run], choices: list[str]) -> tables.Table:
    """Change with its counts, treatment : reference, per category and run."""
    rows = []
    for name_level in names:
        cells = [tables.Cell(readable(name_level[0]))]
        for run in runs:
            row = run.delta(*name_level)
            text = "–" if row is None else f"{row.text} ({row.counts[1]} : {row.counts[0]})"
            known = row is not None and row.value == row.value
            cells.append(tables.Cell(text, sort=row.value if row is not None and known else None))
        rows.append(tuple(cells))
    return tables.plain(["Category", *choices], rows, numeric=range(1, len(choices) + 1))


def _signs_table(stability: dict[tuple[str, str], SignStability]) -> tables.Table:
    titles = ["Category", "Level", "Sign", "More", "Less", "Of these clear of 0", "No sign"]
    rows = [
        (
            readable(name), level, signs.sign, signs.more, signs.less, signs.clear_more + signs.clear_less,
            signs.unknown, tables.Cell(share(signs.share), sort=signs.share if signs.n_signed else None),
            signs.chance(),
        )
        for (name, level), signs in stability.items()
    ]  # fmt: skip
    titles += ["Sign stability", "Chance of this agreement"]
    return tables.plain(titles, rows, numeric=range(3, len(titles)))
