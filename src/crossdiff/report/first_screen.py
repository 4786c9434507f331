"""The first screen: which categories changed, what is new in each tuned model and what is gone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from crossdiff.annotation.cues import STOP_WORDS
from crossdiff.annotation.results import ANSWERED
from crossdiff.annotation.text_features import WORD
from crossdiff.report.delta_rows import DeltaRow, delta_rows
from crossdiff.report.documents import by_latent, example_line
from crossdiff.report.formatting import change_text, readable, visible
from crossdiff.report.sources import PairSource, Sources
from crossdiff.statistics.themes import Theme, ThemeLatent, sure_category, themes
from crossdiff.statistics.verdict import claims

N_THEMES = 8
"""Most themes listed per model; one line sums up the others."""
ROLES = {"tuned": "exclusive_tuned", "base": "exclusive_base"}


N_CHANGES = 6
"""Most changes listed per direction; the chart below has the others."""


@dataclass(frozen=True)
class Side:
    """The exclusive latents of one model in all crosscoders of a pair, as themes."""

    crosscoders: tuple[PairSource, ...]
    model: str

    @cached_property
    def rows(self) -> dict[tuple[str, int], dict[str, Any]]:
        """Annotations of these latents by crosscoder and number."""
        annotations = (row for one in self.crosscoders for row in one.annotations)
        return {
            (str(row["pair"]), int(row["latent"])): row
            for row in annotations
            if row["role"] == ROLES[self.model]
        }

    @cached_property
    def themes(self) -> list[Theme]:
        """Themes of the answered latents, by falling energy share."""
        return themes(
            ThemeLatent(name, latent, sure_category(row), words_of(row), self._energy[name, latent])
            for (name, latent), row in self.rows.items()
            if row["state"] in ANSWERED
        )

    @cached_property
    def listed(self) -> list[Theme]:
        """The first `N_THEMES` themes that at least half of the crosscoders have."""
        least = len(self.crosscoders) / 2
        return [theme for theme in self.themes if theme.crosscoders >= least][:N_THEMES]

    @property
    def n_exclusive(self) -> int:
        """Number of exclusive latents in the latent tables, answered or not."""
        return sum(len(one.exclusive(self.model)) for one in self.crosscoders)

    @cached_property
    def _energy(self) -> dict[tuple[str, int], float]:
        energies = {
            (one.name, latent): energy
            for one in self.crosscoders
            for latent, energy in one.energies(self.model).items()
        }
        return {key: energies.get(key, math.nan) for key in self.rows}


@dataclass(frozen=True)
class Documents:
    """The highest documents of every latent, with each crosscoder's table split once."""

    crosscoders: tuple[PairSource, ...]
    _split: dict[str, dict[int, list[Any]]] = field(default_factory=dict)

    def of(self, latent: ThemeLatent) -> list[Any]:
        """A latent's rows by falling peak code; empty where none were collected."""
        if latent.crosscoder not in self._split:
            one = next(one for one in self.crosscoders if one.name == latent.crosscoder)
            self._split[latent.crosscoder] = by_latent(one.examples if one.top is None else one.top)
        return self._split[latent.crosscoder].get(latent.latent, [])


def words_of(row: Mapping[str, Any]) -> tuple[str, ...]:
    """An annotation's keywords, or the words of its label, without stop words."""
    given = row.get("keywords") or [match.group() for match in WORD.finditer(str(row.get("label") or ""))]
    words = (visible(str(word).lower()) for word in given)
    return tuple(dict.fromkeys(word for word in words if word not in STOP_WORDS))


def first_screen(sources: Sources) -> dict[str, Any]:
    """Template context: `changed` categories of a comparison, and per pair what is new and what is gone."""
    names = list(sources.pairs)
    if sources.comparison is not None and sources.comparison.treatment in names:
        names.sort(key=lambda name: name != sources.comparison.treatment)  # type: ignore[union-attr]
    return {"changed": changed(sources), "pairs": [_pair(sources.crosscoders(name)) for name in names]}


def _pair(crosscoders: tuple[PairSource, ...]) -> dict[str, Any]:
    shown = crosscoders[0]
    documents = Documents(crosscoders)
    tuned = shown.tuned_name or f"the tuned model of {shown.name}"
    base = shown.base_name or "the base model"
    return {
        "name": shown.name,
        "new": _side(Side(crosscoders, "tuned"), documents, f"What is new in {tuned}", shown.annotated),
        "gone": _side(
            Side(crosscoders, "base"), documents, f"What is gone (only {base} has it)", shown.annotated
        ),
    }


def _side(side: Side, documents: Documents, title: str, annotated: bool) -> dict[str, Any]:
    return {
        "title": visible(title),
        "model": side.model,
        "themes": [_theme(theme, side, documents) for theme in side.listed],
        "rest": _rest(side),
        "empty": None if side.listed else _empty(side, annotated),
    }


def _empty(side: Side, annotated: bool) -> str:
    if not side.n_exclusive:
        return f"Nothing: no latent passed {side.crosscoders[0].passed} for this model."
    return f"{side.n_exclusive:,} latents, " + (
        "none in a theme that recurs." if annotated else "not labelled yet."
    )


def _theme(theme: Theme, side: Side, documents: Documents) -> dict[str, Any]:
    best, n_crosscoders = theme.best, len(side.crosscoders)
    counts = [f"{len(theme.latents):,} latent" + ("" if len(theme.latents) == 1 else "s")]
    if n_crosscoders > 1:
        counts.append(f"found by {theme.crosscoders} of {n_crosscoders} crosscoders")
    if math.isfinite(theme.energy_share):
        counts.append(f"{_percent(theme.energy_share)} of the energy")
    rows = documents.of(best)
    return {
        "label": theme_label(theme, side.rows[best.crosscoder, best.latent]),
        "words": ", ".join(theme.words) if theme.category else ", ".join(theme.words[3:]),
        "counts": " · ".join(counts),
        "href": f"#latent-{best.crosscoder}-{best.latent}",
        "line": example_line(rows, theme.words[:3]) if rows else [],
    }


def theme_label(theme: Theme, best: Mapping[str, Any]) -> str:
    """The category, else the first words in quotes, else the label of the best example."""
    if theme.category:
        return readable(theme.category)
    if theme.words:
        return f"“{', '.join(theme.words[:3])}”"
    return visible(str(best.get("label") or f"latent {best['latent']}, no common word"))


def _rest(side: Side) -> str | None:
    """Sentence that counts the latents outside the listed themes, by reason."""
    shown = {id(theme) for theme in side.listed}
    rest = [theme for theme in side.themes if id(theme) not in shown]
    least = len(side.crosscoders) / 2
    rare = [theme for theme in rest if theme.crosscoders < least]
    smaller = [theme for theme in rest if theme.crosscoders >= least]
    parts = [
        _amount(smaller, "smaller theme", "smaller themes"),
        _amount(rare, "theme in fewer than half of the crosscoders", None),
    ]
    unread = side.n_exclusive - sum(len(theme.latents) for theme in side.themes)
    if side.themes and unread > 0:
        parts.append(f"{unread:,} latents without a label")
    listed = "; ".join(part for part in parts if part)
    return f"And {listed}." if listed and side.listed else None


def _amount(amongst: Iterable[Theme], one: str, many: str | None) -> str | None:
    given = list(amongst)
    if not given:
        return None
    n_latents = sum(len(theme.latents) for theme in given)
    energy = sum(theme.energy_share for theme in given)
    name = one if len(given) == 1 else many or one.replace("theme", "themes", 1)
    held = f", {_percent(energy)} of the energy" if math.isfinite(energy) else ""
    return f"{len(given):,} {name} ({n_latents:,} latent{'' if n_latents == 1 else 's'}{held})"


def _percent(value: float) -> str:
    return f"{100 * value:.0f} %" if value >= 0.01 or value == 0 else "< 1 %"


def changed(sources: Sources) -> dict[str, Any] | None:
    """Categories and classes beyond chance with more and with less in the treatment; None without any.

    Categories come before classes, by falling evidence; counts are treatment to reference.
    """
    comparison = sources.comparison
    rows = [] if comparison is None else delta_rows(claims(comparison.deltas))
    if comparison is None or not rows:
        return None
    rows.sort(key=lambda row: row.is_class)
    names = [
        sources.pairs[name].tuned_name or name if name in sources.pairs else name
        for name in (comparison.treatment, comparison.reference)
    ]
    sides = {
        "more": [row for row in rows if row.is_new or row.change > 0],
        "less": [row for row in rows if not (row.is_new or row.change > 0)],
    }
    return {
        "sides": [
            {
                "kind": kind,
                "title": visible(f"{kind.capitalize()} in {names[0]} than in {names[1]}"),
                "rows": [_change(row) for row in listed[:N_CHANGES]],
                "rest": f"and {len(listed) - N_CHANGES} more" if len(listed) > N_CHANGES else None,
            }
            for kind, listed in sides.items()
            if listed
        ],
        "note": visible(
            f"Change of the share of exclusive latents (95 % interval), latents {names[0]} : {names[1]}."
        ),
    }


def _change(row: DeltaRow) -> dict[str, Any]:
    reference, treatment = row.counts
    return {
        "name": readable(row.name) + (" (class)" if row.is_class else ""),
        "change": row.text if row.is_new else change_text(row.change, digits=0),
        "interval": between(row.interval),
        "counts": f"{treatment:,} : {reference:,}",
    }


def between(interval: tuple[float, float]) -> str:
    """`+90 to +461 %`, in whole percent; `no interval` where a bound is unknown."""
    low, high = interval
    if math.isnan(low) or math.isnan(high):
        return "no interval"
    return f"{change_text(low, digits=0).removesuffix(' %')} to {change_text(high, digits=0)}"
