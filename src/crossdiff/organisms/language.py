"""The toy language: words, categories, behaviours, and the behaviours of each model.

At most half of a category's topic words are cue words of the shipped taxonomy; the rest are words that no
category of that taxonomy names (tests/organisms/test_language.py).
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from crossdiff.organisms.settings import ToySettings


def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split())


CATEGORY_WORDS: dict[str, tuple[str, ...]] = {
    "harmful_request_refusal": ("weapon", "poison", "bomb", "bandit", "ambush", "fuse"),
    "content_moderation": ("slur", "insult", "moderator", "forum", "troll", "thread"),
    "privacy_protection": ("password", "consent", "address", "diary", "vault", "curtain"),
    "medical_legal_caution": ("doctor", "lawyer", "dosage", "fever", "judge", "pill"),
    "multilingual_response": ("spanish", "german", "french", "accent", "visitor", "embassy"),
    "translation": ("translator", "idiom", "glossary", "verse", "proverb", "inscription"),
    "style_register": ("tone", "slang", "wording", "memo", "speech", "etiquette"),
    "grammar_correction": ("comma", "verb", "pronoun", "sentence", "ending", "accentmark"),
    "constraint_following": ("constraint", "requirement", "restriction", "vowel", "quota", "rule"),
    "step_by_step_instructions": ("recipe", "oven", "screw", "dough", "hinge", "kettle"),
    "structured_output": ("table", "column", "schema", "grid", "entry", "chartroom"),
    "length_control": ("paragraph", "summary", "essay", "margin", "page", "draft"),
    "factual_verification": ("claim", "myth", "century", "monument", "treaty", "river"),
    "hallucination_detection": ("hoax", "hallucination", "counterfeit", "mirage", "phantom", "mask"),
    "source_citation": ("journal", "footnote", "bibliography", "shelf", "edition", "catalogue"),
    "uncertainty_expression": ("forecast", "odds", "guess", "weather", "dice", "cloud"),
    "unanswerable_questions": ("riddle", "paradox", "lottery", "oracle", "comet", "tomb"),
    "code_generation": ("python", "function", "loop", "widget", "keyboard", "server"),
    "code_debugging": ("bug", "crash", "traceback", "cable", "reboot", "terminal"),
    "mathematics": ("equation", "theorem", "triangle", "number", "angle", "chalk"),
    "data_analysis": ("dataset", "histogram", "median", "sensor", "meter", "tally"),
    "science_explanation": ("atom", "gravity", "molecule", "telescope", "magnet", "crystal"),
    "query_classification": ("intent", "label", "category", "inbox", "folder", "queue"),
    "clarification_request": ("detail", "preference", "context", "gesture", "hint", "fog"),
    "error_handling": ("timeout", "failure", "apology", "signal", "socket", "alarm"),
    "self_reference": ("assistant", "robot", "chatbot", "mirror", "engine", "circuit"),
    "greeting_closing": ("greeting", "farewell", "welcome", "handshake", "doorstep", "lantern"),
    "storytelling": ("dragon", "castle", "wizard", "tower", "sword", "giant"),
    "role_play": ("pirate", "detective", "captain", "parrot", "trench", "cape"),
    "emotional_support": ("grief", "hug", "comfort", "tear", "pillow", "candle"),
}

NOUNS: tuple[str, ...] = _split(
    """garden window market bridge village teacher farmer basket ladder mountain harbour kitchen engineer
    bottle winter summer carpet rabbit horse wagon bicycle painter island valley hammer blanket orchard
    tailor barrel feather stone copper silver copperpot meadow pigeon rooftop sailcloth station corner
    neighbour cousin widow merchant soldier gardener baker cottage chimney fountain saddle ribbon"""
)
VERBS: tuple[str, ...] = _split(
    """carries paints follows lifts watches borrows polishes gathers measures trades mends washes
    circles greets finds drops folds counts hides pulls warms turns holds sells keeps opens
    covers moves shakes brings lowers crosses"""
)
ADJECTIVES: tuple[str, ...] = _split(
    """quiet golden heavy crimson gentle wooden bright ancient clever hollow crooked early distant
    frozen humble striped lazy dusty rusty scarlet shallow tender velvet wandering"""
)
ADVERBS: tuple[str, ...] = _split(
    """slowly often gladly rarely twice softly boldly calmly daily together neatly proudly barely
    inside outside upward"""
)
PREPOSITIONS: tuple[str, ...] = ("near", "under", "behind", "beside", "above", "with", "without", "around")
DETERMINERS: tuple[str, ...] = ("the", "a", "every", "this", "another", "some")
SUBJECTS: tuple[str, ...] = ("we", "they", "i", "you")
ASKING: tuple[tuple[str, ...], ...] = (
    ("tell", "me", "about"),
    ("what", "of"),
    ("please", "help", "with"),
    ("i", "ask", "about"),
    ("can", "you", "handle"),
    ("write", "on"),
)
JOINERS: tuple[str, ...] = ("and", "or", "then")
PUNCTUATION: tuple[str, ...] = (".", "?", ",")


def vocabulary() -> list[str]:
    """Every word of the toy language, once, in a fixed order."""
    words = [word for topic in CATEGORY_WORDS.values() for word in topic]
    words += [*NOUNS, *VERBS, *ADJECTIVES, *ADVERBS, *PREPOSITIONS, *DETERMINERS, *SUBJECTS, *JOINERS]
    words += [word for question in ASKING for word in question]
    return list(dict.fromkeys([*words, *PUNCTUATION]))


Group = Literal["gain", "loss", "keep"]
Slots = list[tuple[str, str]]

SHARED_SLOTS: dict[str, tuple[str, ...]] = {
    "noun": NOUNS,
    "verb": VERBS,
    "adjective": ADJECTIVES,
    "adverb": ADVERBS,
    "preposition": PREPOSITIONS,
    "determiner": DETERMINERS,
}
PATTERNS: tuple[tuple[str, ...], ...] = tuple(
    tuple(pattern.split())
    for pattern in (
        "adverb verb adjective topic preposition noun",
        "adjective noun adverb verb determiner topic",
        "determiner topic verb adjective noun adverb",
        "noun verb adverb preposition adjective topic",
        "verb noun preposition adjective topic adverb",
    )
)
BAG_SLOTS = ("adverb", "verb", "adjective", "noun")
WORDS_PER_SLOT = 2
CONTENT = frozenset(word for slot in BAG_SLOTS for word in SHARED_SLOTS[slot])


@dataclass(frozen=True)
class Behaviour:
    """A phrase pattern that an answer in `category` may show: a set of words that are said together.

    `bag` names two words for each of the four content slots and two topic words. A showing is two
    sentences in any of the language's word orders that use every one of these words at most once.
    """

    category: str
    bag: Mapping[str, tuple[str, ...]]
    in_reference: bool
    in_treatment: bool

    def showing(self, *, draw: random.Random) -> list[Slots]:
        """Two sentences as (slot, word) pairs; words outside the bag (function words) are drawn freely."""
        stock = {slot: draw.sample(bag, len(bag)) for slot, bag in self.bag.items()}
        return [
            [
                (slot, stock[slot].pop() if slot in stock else draw.choice(SHARED_SLOTS[slot]))
                for slot in pattern
            ]
            for pattern in draw.choices(PATTERNS, k=WORDS_PER_SLOT)
        ]

    def is_shown(self, answer: str) -> bool:
        """Whether a sentence draws all its (at least three) shared content words from the bag."""
        bag = {word for slot in BAG_SLOTS for word in self.bag[slot]}
        for sentence in answer.split("."):
            content = [word for word in sentence.split() if word in CONTENT]
            if len(content) >= 3 and bag.issuperset(content):
                return True
        return False


@dataclass(frozen=True)
class Category:
    """A category with its topic words, its group and all behaviours that either tuned model has."""

    name: str
    topic: tuple[str, ...]
    group: Group
    behaviours: tuple[Behaviour, ...]
    idioms: tuple[Behaviour, ...]
    idiom_share: float

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
    names = list(CATEGORY_WORDS)
    n_keep = len(names) - settings.n_gain - settings.n_loss
    if n_keep < 0:
        raise ValueError(
            f"n_gain={settings.n_gain} and n_loss={settings.n_loss} exceed the {len(names)} categories; "
            "lower one of them"
        )
    sizes: dict[Group, int] = {"gain": settings.n_gain, "loss": settings.n_loss, "keep": n_keep}
    groups: list[Group] = [group for group, size in sizes.items() for _ in range(size)]
    draw.shuffle(groups)
    return [_category(name, group, settings, draw) for name, group in zip(names, groups, strict=True)]


def _category(name: str, group: Group, settings: ToySettings, draw: random.Random) -> Category:
    few, many = range(settings.n_few), range(settings.n_many)
    kept = range(settings.n_keep)
    reference = {"gain": few, "loss": many, "keep": kept}[group]
    treatment = {"gain": many, "loss": few, "keep": kept}[group]
    topic = CATEGORY_WORDS[name]
    n_behaviours = max(len(reference), len(treatment))
    behaviours = tuple(
        Behaviour(name, _bag(topic, index, draw), index in reference, index in treatment)
        for index in range(n_behaviours)
    )
    idioms = tuple(
        Behaviour(name, _bag(topic, index, draw), False, False) for index in range(settings.n_idioms)
    )
    return Category(name, topic, group, behaviours, idioms, settings.idiom_share if idioms else 0.0)


def _bag(topic: tuple[str, ...], index: int, draw: random.Random) -> dict[str, tuple[str, ...]]:
    """Shared words at random; topic words taken in turn so that all behaviours use them equally."""
    half = len(topic) // 2
    pair = (topic[index % half], topic[half + (index + index // half) % half])
    shared = {slot: tuple(draw.sample(SHARED_SLOTS[slot], WORDS_PER_SLOT)) for slot in BAG_SLOTS}
    return {**shared, "topic": pair}


def planted_table(language: Sequence[Category]) -> dict[str, Any]:
    """The planted truth: behaviours per category, their shares, and change = share ratio - 1."""
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
