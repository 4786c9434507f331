"""The report's figures by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crossdiff.report.comparison_section import comparison_section
from crossdiff.report.pair_section import pair_section
from crossdiff.report.sources import ComparisonSource, PairSource

if TYPE_CHECKING:
    import plotly.graph_objects as go

OF_COMPARISON = ("changes", "multiverse")
OF_PAIR = ("delta_norm", "nu", "stops", "density", "norms", "cosines", "training")


def known_name(name: str) -> str:
    """The name with `_`; ValueError for one that the report has not."""
    plain = name.replace("-", "_")
    if plain not in (*OF_COMPARISON, *OF_PAIR):
        raise ValueError(f"there is no figure {name!r}; there are {', '.join((*OF_COMPARISON, *OF_PAIR))}")
    return plain


def comparison_figure(name: str, comparison: ComparisonSource | None, *, whose: str) -> go.Figure:
    """A figure of two pairs against each other; ValueError where there is no comparison."""
    if comparison is None:
        raise ValueError(
            f"figure {name!r} shows a comparison, and {whose} has one pair; it has figures "
            f"{', '.join(OF_PAIR)}"
        )
    drawn: dict[str, Any] = {}
    comparison_section(comparison, drawn)
    return _drawn(drawn, name, f"the comparison of {whose}")


def pair_figure(name: str, pair: PairSource) -> go.Figure:
    """A figure of one pair; ValueError where there is nothing to draw."""
    drawn: dict[str, Any] = {}
    pair_section(pair, [], drawn)
    figures = {key.removesuffix(f"-{pair.name}").replace("-", "_"): made for key, made in drawn.items()}
    return _drawn(figures, name, pair.name)


def _drawn(figures: dict[str, Any], name: str, whose: str) -> go.Figure:
    if name not in figures:
        raise ValueError(f"{whose} has no figure {name!r} (nothing to draw); it has {', '.join(figures)}")
    return figures[name]
