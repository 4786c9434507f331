"""Results of steering along one pair's latents: rising curves, pooled rates, sentences and charts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import read_json
from crossdiff.report import tables
from crossdiff.report.formatting import between, number, readable, tile, told
from crossdiff.report.study_page import Chart
from crossdiff.statistics.significance import fisher_p_value
from crossdiff.studies.steering.step import PLACES
from crossdiff.studies.steering.targets import (
    LATENT,
    REMOVED,
    VERDICTS,
    Curve,
    pooled,
    read_curves,
    verdicts,
)

if TYPE_CHECKING:
    from crossdiff.report.tables import Table

ASKED = {"own": "prompts of the latent's category", "neutral": "prompts of other categories"}
ALL, GAIN = "all", "gain"
LEVEL = 0.05
CELL = ("shown", "n", "rate", "low", "high")


@dataclass(frozen=True)
class SteeredPair:
    """The artifact of one `steer` step; `groups`: category -> planted group, where known."""

    pair: str
    record: Mapping[str, Any]
    curves: Sequence[Curve]
    groups: Mapping[str, str]
    tested_to: float

    @classmethod
    def read(cls, pair: str, folder: Path, groups: Mapping[str, str], tested_to: float) -> SteeredPair:
        """Read the step's files."""
        import pandas as pd

        curves = read_curves(pd.read_csv(folder / "steering.csv"))
        return cls(pair, read_json(folder / "steering.json"), curves, groups, tested_to)

    @cached_property
    def rows(self) -> dict[int, Mapping[str, Any]]:
        """Latent -> its category, behaviour, share of documents, largest code, length of dose 1."""
        return {row["latent"]: row for row in self.record["latents"]}

    def chosen(self, place: str, group: str) -> tuple[list[Curve], list[Curve]]:
        """Curves of the group's latents, and of their random directions."""
        curves = [curve for curve in self.curves if curve.place == place and group in self._groups_of(curve)]
        latents = [curve for curve in curves if curve.direction == LATENT]
        return latents, [curve for curve in curves if curve.direction != LATENT]

    def _groups_of(self, curve: Curve) -> tuple[str, ...]:
        name = self.groups.get(self.rows[curve.latent]["category"])
        return (ALL,) if name is None else (ALL, name)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """`all`, and the planted groups that have latents."""
        names = {name for curve in self.curves for name in self._groups_of(curve)}
        return (ALL, *sorted(names - {ALL}))

    @cached_property
    def numbers(self) -> dict[str, Any]:
        """Counts of latents; verdicts, rates and Fisher's p of the rises per kind of prompts and group."""
        counts = {name: self.record[name] for name in ("n_exclusive", "n_in_category", "n_matched")}
        places = {place: {name: self._numbers(place, name) for name in self.names} for place in PLACES}
        return {**counts, "n_steered": len(self.rows), "tested_to": self.tested_to, "places": places}

    def _numbers(self, place: str, group: str) -> dict[str, Any]:
        latents, others = self.chosen(place, group)
        raised, drawn = verdicts(latents, self.tested_to), verdicts(others, self.tested_to)
        return {
            "latents": raised,
            "random": drawn,
            "share_not_rising": 1 - raised["rises"] / raised["n"] if raised["n"] else float("nan"),
            "p_value": fisher_p_value(drawn["rises"], drawn["n"], raised["rises"], raised["n"]),
            "rates_latents": pooled(latents),
            "rates_random": pooled(others),
        }

    def sentence(self) -> str:
        """Rises at prompts of the latents' categories, against random directions."""
        if not self.rows:
            return (
                f"{self.pair}: none of {self.record['n_exclusive']} exclusive latents belongs to a behaviour "
                "that can be asked for, so nothing was steered."
            )
        groups = self.numbers["places"]["own"]
        steered, drawn, p_value = (groups[ALL][name] for name in ("latents", "random", "p_value"))
        more = steered["rises"] * drawn["n"] > drawn["rises"] * steered["n"] and p_value < LEVEL
        verdict = (
            "adding the latents moves the behaviour of their category"
            if more
            else "adding the latents moves the behaviour no more than random directions do"
        )
        gain = f"{_of(groups[GAIN]['latents'])} latents of gain categories and " if GAIN in groups else ""
        return (
            f"{self.pair}: the behaviour's rate rises with the dose for {gain}{_of(steered)} latents in all, "
            f"and for {_of(drawn)} random directions of the same length ({drawn['falls']} fall): {verdict} "
            f"({'no rise' if p_value != p_value else f'Fisher p = {p_value:.2g}'}). {_removal(groups[ALL])}"
        )

    def notes(self) -> list[str]:
        """Counts of latents, verdicts at both kinds of prompts, and the trend of all directions together."""
        record = self.record
        counts = (
            f"{self.pair}: {len(self.rows)} latents were steered, of {record['n_matched']} with a behaviour, "
            f"{record['n_in_category']} in a category that has one, {record['n_exclusive']} exclusive."
        )
        return [counts, *(self._note(place) for place in PLACES)] if self.rows else [counts]

    def _note(self, place: str) -> str:
        figures = self.numbers["places"][place][ALL]
        steered, drawn = figures["latents"], figures["random"]
        still = told(figures["share_not_rising"], ".0%")
        return (
            f"{self.pair}, {ASKED[place]}: of {steered['n']} latents {_listed(steered)}; "
            f"of {drawn['n']} random directions {_listed(drawn)}; {still} of latents do not rise. Of flat "
            "ones 2.5 % are called rising by chance, and weak rises are missed: trend of all latents "
            f"together z = {number(steered['z_together'])}, of all random directions "
            f"{number(drawn['z_together'])}."
        )

    def tiles(self) -> list[dict[str, str]]:
        """Rising latents and rising random directions."""
        figures = self.numbers["places"]["own"][GAIN if GAIN in self.names else ALL] if self.rows else None
        if figures is None:
            return []
        what = "of gain categories" if GAIN in self.names else "in all"
        return [
            tile(f"{self.pair}: rising", _of(figures["latents"]), f"latents {what}"),
            tile(f"{self.pair}: random, rising", _of(figures["random"]), "directions of the same length"),
        ]

    def charts(self) -> list[Chart]:
        """Dose-response curves for both kinds of prompts, and every latent."""
        return [*(self._curves(place) for place in PLACES), self._latents()]

    def _curves(self, place: str) -> Chart:
        from crossdiff.report.figures.curves import Point, curves

        series, body = {}, []
        for group in self.names:
            for kind in ("latents", "random"):
                rates = self.numbers["places"][place][group][f"rates_{kind}"]
                body += [
                    [readable(group), kind, name, *(cell[key] for key in CELL)]
                    for name, cell in rates.items()
                ]
                points = [
                    Point(float(name), cell["rate"], cell["low"], cell["high"])
                    for name, cell in rates.items()
                    if name != REMOVED
                ]
                if kind == "latents" or group == ALL:
                    series[f"{readable(group)}: {kind}"] = points
        titles = ["Categories", "Direction", "Dose", "Shown", "Answers", "Rate", "Low", "High"]
        return Chart(
            f"{self.pair}-{place}",
            f"{self.pair}: rate over dose, {ASKED[place]}",
            f"Doses in units of a latent's largest code; the trend is tested from 0 to {self.tested_to:g}. "
            "Bars: Wilson's 95 % intervals over answers. removed: the part of the states along the direction "
            "is taken out.",
            curves(series, x_title="dose", y_title="share of answers"),
            tables.plain(titles, body, numeric=range(3, 8)),
        )

    def _latents(self) -> Chart:
        caption = "Trends at both kinds of prompts; share of its highest documents that show the behaviour."
        return Chart(f"{self.pair}-latents", f"{self.pair}: every latent", caption, table=self._table())

    def _table(self) -> Table:
        curves = {(c.latent, c.place): c for c in self.curves if c.direction == LATENT}
        body = []
        for latent, row in self.rows.items():
            cells: list[Any] = [latent, readable(row["target"]), row["share"], row["norm"]]
            for place in PLACES:
                curve = curves[latent, place]
                cells += [curve.z(self.tested_to), curve.verdict(self.tested_to)]
            body.append(cells)
        titles = [
            "Latent",
            "Behaviour",
            "Documents",
            "Length",
            "z",
            "Trend",
            "z elsewhere",
            "Trend elsewhere",
        ]
        return tables.plain(titles, body, numeric=(0, 2, 3, 4, 6))


def _of(counts: Mapping[str, Any]) -> str:
    return f"{counts['rises']} of {counts['n']}"


def _listed(counts: Mapping[str, Any]) -> str:
    words = ("rise", "fall", "are flat", "are silent")
    return ", ".join(f"{counts[name]} {word}" for name, word in zip(VERDICTS, words, strict=True))


def _removal(figures: Mapping[str, Any]) -> str:
    before = figures["rates_latents"]["0"]
    without = (figures[f"rates_{kind}"][REMOVED] for kind in ("latents", "random"))
    texts = [
        f"{told(cell['rate'], '.0%')} ({between(cell['low'], cell['high'], '.0%')})"
        for cell in (before, *without)
    ]
    return (
        f"Shown in {texts[0]} of answers before, in {texts[1]} with the latents' directions taken out of the "
        f"states, in {texts[2]} with random ones taken out."
    )
