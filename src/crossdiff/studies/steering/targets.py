"""Behaviours of single latents (prompts, judge, matching), and dose-response curves."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, cycle, islice, zip_longest
from typing import TYPE_CHECKING, Any, Literal

from crossdiff.organisms.documents import question
from crossdiff.organisms.language import Category, build_language
from crossdiff.organisms.settings import ToySettings
from crossdiff.statistics.intervals import Z, trend, wilson
from crossdiff.studies.behaviour.prompts import built_in

if TYPE_CHECKING:
    import pandas as pd


MATCHED = 0.5
"""Least share of a latent's highest documents with its planted phrase at the peak."""


@dataclass(frozen=True)
class Target:
    """One behaviour of a category: prompts of that category, prompts of the others, and its judge."""

    name: str
    category: str
    own: tuple[str, ...]
    neutral: tuple[str, ...]
    shows: Callable[[str], bool]
    planted: bool = False
    """Whether it is a phrase of the toy language, which documents can show too."""


def built_in_targets(n_prompts: int) -> list[Target]:
    """One target per set of prompts.yaml, with its prompts and those of all other sets in turn."""
    sets = built_in()
    return [
        Target(
            prompt_set.name,
            prompt_set.category,
            _in_turn(prompt_set.prompts, n_prompts),
            _in_turn(_alternating([other.prompts for other in sets if other is not prompt_set]), n_prompts),
            prompt_set.rule.shows,
        )
        for prompt_set in sets
    ]


def planted_targets(toy: ToySettings, n_prompts: int) -> list[Target]:
    """One target per phrase of either tuned model of the toy."""
    draw = random.Random(f"steering {toy.seed}")
    language = build_language(toy)
    targets = []
    for category in language:
        own = _questions([category], n_prompts, draw)
        neutral = _questions([other for other in language if other is not category], n_prompts, draw)
        targets += [
            Target(f"{category.name} {number}", category.name, own, neutral, behaviour.is_shown, planted=True)
            for number, behaviour in enumerate(category.behaviours, 1)
        ]
    return targets


def target_of(
    category: str, sentences: Sequence[str], targets: Sequence[Target]
) -> tuple[Target, float] | None:
    """The behaviour of a latent and the share of its highest documents that show it; None without one.

    Decided before generation, from the annotator's category and `sentences`, those at the peaks of the
    latent's highest documents. Planted phrases: the one that most sentences show, if at least half do, no
    other phrase is as frequent, and it belongs to the category. Built-in sets: the category's set, with share
    1.
    """
    own = [target for target in targets if target.category == category]
    if not any(target.planted for target in targets):
        return (own[0], 1.0) if own else None
    shown = Counter(
        target.name for sentence in sentences for target in targets if target.shows(sentence)
    ).most_common(2)
    if not shown or shown[0][1] < MATCHED * len(sentences):
        return None
    if len(shown) == 2 and shown[1][1] == shown[0][1]:
        return None
    best = [target for target in own if target.name == shown[0][0]]
    return (best[0], shown[0][1] / len(sentences)) if best else None


def sentence_at(tokens: Sequence[str], peak: int) -> str:
    """The sentence with the token `peak`, up to a full stop, which belongs to the sentence it ends."""
    words = [token.strip() for token in tokens]
    ends = [place for place, word in enumerate(words) if word == "."]
    start = max((end + 1 for end in ends if end < peak), default=0)
    stop = min((end for end in ends if end >= peak), default=len(words))
    return " ".join(words[start:stop])


def _questions(categories: Sequence[Category], n_prompts: int, draw: random.Random) -> tuple[str, ...]:
    shuffled = draw.sample(list(categories), len(categories))
    return tuple(question(category, draw=draw) for category in islice(cycle(shuffled), n_prompts))


def _in_turn(prompts: Sequence[str], n_prompts: int) -> tuple[str, ...]:
    return tuple(islice(cycle(prompts), n_prompts))


def _alternating(lists: Sequence[Sequence[str]]) -> list[str]:
    return [prompt for prompt in chain.from_iterable(zip_longest(*lists)) if prompt is not None]


Verdict = Literal["rises", "falls", "flat", "silent"]
VERDICTS: tuple[Verdict, ...] = ("rises", "falls", "flat", "silent")
"""A trend beyond the two-sided 5 % point, up or down; neither; behaviour in no answer or in all."""
LATENT = "latent"
"""Name of the latent's direction; other directions are random and as long."""
REMOVED = "removed"


def counted(lines: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Counts of one latent's answers per direction, dose and place, in order."""
    cells: dict[tuple, list[Mapping[str, Any]]] = {}
    for line in lines:
        key = (line["latent"], line["direction"], line["dose"], line["place"])
        cells.setdefault(key, []).append(line)
    for (latent, direction, dose, place), answers in cells.items():
        yield {
            "latent": latent, "direction": direction, "dose": dose, "place": place,
            "shown": sum(line["shown"] for line in answers), "n": len(answers),
            "n_empty": sum(not line["answer"] for line in answers),
        }  # fmt: skip


@dataclass(frozen=True)
class Curve:
    """Answers per dose of an added direction, and `removed`: answers with the direction removed."""

    latent: int
    direction: str
    place: str
    counts: Mapping[float, tuple[int, int]]
    """Dose -> (answers that show the behaviour, answers); random directions share the latent's dose 0."""
    removed: tuple[int, int] | None

    def stratum(self, tested_to: float) -> tuple[list[float], list[int], list[int]]:
        """Doses from 0 to `tested_to` with their counts."""
        doses = sorted(dose for dose in self.counts if 0 <= dose <= tested_to)
        return doses, [self.counts[d][0] for d in doses], [self.counts[d][1] for d in doses]

    def z(self, tested_to: float) -> float:
        """The trend's z over doses from 0 to `tested_to`."""
        return trend([self.stratum(tested_to)])

    def verdict(self, tested_to: float) -> Verdict:
        """The trend's verdict."""
        z = self.z(tested_to)
        if z != z:
            return "silent"
        return "rises" if z > Z else "falls" if z < -Z else "flat"


def read_curves(table: pd.DataFrame) -> list[Curve]:
    """The curves in `steering.csv`; random directions have the latent's answers at dose 0."""
    cells: dict[tuple[int, str, str], dict[float | str, tuple[int, int]]] = {}
    for row in table.to_dict("records"):
        dose = REMOVED if row["dose"] != row["dose"] else float(row["dose"])
        key = (int(row["latent"]), str(row["direction"]), str(row["place"]))
        cells.setdefault(key, {})[dose] = (int(row["shown"]), int(row["n"]))
    curves = []
    for (latent, direction, place), counts in cells.items():
        removed = counts.pop(REMOVED, None)
        zero = cells[latent, LATENT, place][0.0]
        doses = {0.0: zero, **{float(dose): cell for dose, cell in counts.items()}}
        curves.append(Curve(latent, direction, place, doses, removed))
    return curves


def verdicts(curves: Sequence[Curve], tested_to: float) -> dict[str, Any]:
    """Number of curves per verdict, and the trend of all together."""
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
    rates = {}
    for name, answers in cells.items():
        shown, n = sum(cell[0] for cell in answers), sum(cell[1] for cell in answers)
        low, high = wilson(shown, n)
        rate = shown / n if n else float("nan")
        rates[name] = {"shown": shown, "n": n, "rate": rate, "low": low, "high": high}
    return rates
