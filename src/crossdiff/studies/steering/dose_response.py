"""Dose-response curves of single directions, what each of them says, and all of them together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from crossdiff.statistics.proportions import Z, trend, wilson

if TYPE_CHECKING:
    import pandas as pd

Verdict = Literal["rises", "falls", "flat", "silent"]
VERDICTS: tuple[Verdict, ...] = ("rises", "falls", "flat", "silent")
"""A trend beyond the two-sided 5 % point, up or down; neither; or shown by no answer, or by every one."""
LATENT = "latent"
"""Direction of the latent itself; every other direction is random and as long."""
REMOVED = "removed"


@dataclass(frozen=True)
class Curve:
    """Answers per dose while one direction is added; `removed`: while it is taken out of the states."""

    latent: int
    direction: str
    place: str
    counts: Mapping[float, tuple[int, int]]
    """Dose -> (answers that show the behaviour, answers); 0 is the latent's own, for its random ones too."""
    removed: tuple[int, int] | None

    def stratum(self, tested_to: float) -> tuple[list[float], list[int], list[int]]:
        """Doses from 0 to `tested_to` with their counts."""
        doses = sorted(dose for dose in self.counts if 0 <= dose <= tested_to)
        return doses, [self.counts[d][0] for d in doses], [self.counts[d][1] for d in doses]

    def z(self, tested_to: float) -> float:
        """The trend's z over doses from 0 to `tested_to`."""
        return trend([self.stratum(tested_to)])

    def verdict(self, tested_to: float) -> Verdict:
        """What the trend says."""
        z = self.z(tested_to)
        if z != z:
            return "silent"
        return "rises" if z > Z else "falls" if z < -Z else "flat"


def read_curves(table: pd.DataFrame) -> list[Curve]:
    """The curves in `steering.csv`, every random direction with the latent's answers at dose 0."""
    cells: dict[tuple[int, str, str], dict[float | str, tuple[int, int]]] = {}
    for row in table.to_dict("records"):
        dose = REMOVED if row["dose"] != row["dose"] else float(row["dose"])
        key = (int(row["latent"]), str(row["direction"]), str(row["place"]))
        cells.setdefault(key, {})[dose] = (int(row["shown"]), int(row["n"]))
    found = []
    for (latent, direction, place), counts in cells.items():
        removed = counts.pop(REMOVED, None)
        zero = cells[latent, LATENT, place][0.0]
        doses = {0.0: zero, **{float(dose): cell for dose, cell in counts.items()}}
        found.append(Curve(latent, direction, place, doses, removed))
    return found


def verdicts(curves: Sequence[Curve], tested_to: float) -> dict[str, Any]:
    """How many curves rise, fall, stay flat and are silent, and the trend of all of them together."""
    counts = Counter(curve.verdict(tested_to) for curve in curves)
    z = trend([curve.stratum(tested_to) for curve in curves])
    return {"n": len(curves), **{name: counts[name] for name in VERDICTS}, "z_together": z}


def pooled(curves: Sequence[Curve]) -> dict[str, dict[str, float]]:
    """Dose (or `removed`) -> shown, n, rate and its 95 % interval over the answers of all curves."""
    doses = sorted({dose for curve in curves for dose in curve.counts})
    cells: dict[str, list[tuple[int, int]]] = {
        f"{dose:g}": [curve.counts[dose] for curve in curves if dose in curve.counts] for dose in doses
    }
    cells[REMOVED] = [curve.removed for curve in curves if curve.removed is not None]
    found = {}
    for name, own in cells.items():
        shown, n = sum(cell[0] for cell in own), sum(cell[1] for cell in own)
        low, high = wilson(shown, n)
        rate = shown / n if n else float("nan")
        found[name] = {"shown": shown, "n": n, "rate": rate, "low": low, "high": high}
    return found
