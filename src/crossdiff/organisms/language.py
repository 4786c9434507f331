"""The toy language: categories, their behaviours, and which model has which."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crossdiff.organisms import words
from crossdiff.organisms.settings import ToySettings

Group = Literal["gain", "loss", "keep"]

SHARED_SLOTS: dict[str, tuple[str, ...]] = {
    "noun": words.NOUNS,
    "verb": words.VERBS,
    "adjective": words.ADJECTIVES,
    "adverb": words.ADVERBS,
    "preposition": words.PREPOSITIONS,
    "determiner": words.DETERMINERS,
}
PATTERNS: tuple[tuple[str, ...], ...] = tuple(
    tuple(pattern.split())
    for pattern in (
        "adverb verb determiner adjective topic preposition determiner topic",
        "determiner adjective topic adverb verb determiner topic",
        "topic verb determiner noun preposition determiner topic adverb",
        "determiner noun adverb verb adjective topic preposition topic",
        "adjective topic preposition noun verb determiner topic adverb",
    )
)


@dataclass(frozen=True)
class Behaviour:
    """A fixed phrase that an answer in `category` may show; `pattern` names the slot of each word."""

    category: str
    phrase: tuple[str, ...]
    pattern: tuple[str, ...]
    in_reference: bool
    in_treatment: bool


@dataclass(frozen=True)
class Category:
    """A category with its topic words, its group and all behaviours that either tuned model has."""

    name: str
    topic: tuple[str, ...]
    group: Group
    behaviours: tuple[Behaviour, ...]

    @property
    def n_reference(self) -> int:
        """Behaviours that `it` has."""
        return sum(behaviour.in_reference for behaviour in self.behaviours)

    @property
    def n_treatment(self) -> int:
        """Behaviours that `simpo` has."""
        return sum(behaviour.in_treatment for behaviour in self.behaviours)


def fill(pattern: Sequence[str], topic: Sequence[str], *, draw: random.Random) -> tuple[str, ...]:
    """Draw a word for every slot of a pattern."""
    return tuple(draw.choice(topic if slot == "topic" else SHARED_SLOTS[slot]) for slot in pattern)


def build_language(settings: ToySettings) -> list[Category]:
    """The 30 categories in taxonomy order; groups and phrases are a function of the seed."""
    draw = random.Random(f"language {settings.seed}")
    names = list(words.CATEGORY_WORDS)
    n_keep = len(names) - settings.n_gain - settings.n_loss
    if n_keep < 0:
        raise ValueError(
            f"n_gain={settings.n_gain} and n_loss={settings.n_loss} exceed the {len(names)} categories; "
            "lower one of them"
        )
    groups: list[Group] = ["gain"] * settings.n_gain + ["loss"] * settings.n_loss + ["keep"] * n_keep
    draw.shuffle(groups)
    return [_category(name, group, settings, draw) for name, group in zip(names, groups, strict=True)]


def _category(name: str, group: Group, settings: ToySettings, draw: random.Random) -> Category:
    few, many = range(settings.n_few), range(settings.n_many)
    kept = range(settings.n_keep)
    reference = {"gain": few, "loss": many, "keep": kept}[group]
    treatment = {"gain": many, "loss": few, "keep": kept}[group]
    topic = words.CATEGORY_WORDS[name]
    behaviours = []
    for index in range(max(len(reference), len(treatment))):
        pattern = draw.choice(PATTERNS)
        phrase = _phrase(pattern, topic, index, draw)
        behaviours.append(Behaviour(name, phrase, pattern, index in reference, index in treatment))
    return Category(name, topic, group, tuple(behaviours))


def _phrase(
    pattern: tuple[str, ...], topic: tuple[str, ...], index: int, draw: random.Random
) -> tuple[str, ...]:
    """Shared words at random; topic words taken in turn so that all behaviours use them equally."""
    half = len(topic) // 2
    pair = [topic[index % half], topic[half + (index + index // half) % half]]
    draw.shuffle(pair)
    remaining = iter(pair)
    return tuple(next(remaining) if slot == "topic" else draw.choice(SHARED_SLOTS[slot]) for slot in pattern)


def planted_table(language: Sequence[Category]) -> dict[str, Any]:
    """What is planted: behaviours per category, their shares, and change = share ratio - 1."""
    total_reference = sum(category.n_reference for category in language)
    total_treatment = sum(category.n_treatment for category in language)
    rows = []
    for category in language:
        share_reference = category.n_reference / total_reference
        share_treatment = category.n_treatment / total_treatment
        rows.append(
            {
                "name": category.name,
                "group": category.group,
                "n_reference": category.n_reference,
                "n_treatment": category.n_treatment,
                "share_reference": share_reference,
                "share_treatment": share_treatment,
                "change": share_treatment / share_reference - 1,
            }
        )
    return {"version": 1, "categories": rows}
