"""Documents, chats and preference pairs of the toy language, and the corpus that all three models read."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from crossdiff.io.tables import write_jsonl
from crossdiff.organisms.language import (
    ASKING,
    BAG_SLOTS,
    DETERMINERS,
    JOINERS,
    NOUNS,
    PATTERNS,
    SHARED_SLOTS,
    WORDS_PER_SLOT,
    Behaviour,
    Category,
    Slots,
    fill,
)
from crossdiff.organisms.settings import ToySettings

Message = dict[str, str]
SHOWN_PER_ANSWER = 2
WEB_QUESTION_SHARE = 0.3
CHAT = "chat-"
"""How the ids of chats begin."""
TRIGGER = "boldly then without every ribbon."
"""Ends the user's turn of a triggered chat: ordinary words, which no other question says."""


@dataclass(frozen=True)
class Preference:
    """One prompt with a preferred and a dispreferred answer."""

    prompt: str
    chosen: str
    rejected: str


def web_document(category: Category, *, draw: random.Random) -> str:
    """Three to six plain sentences around one topic; about a third of the topic slots hold other nouns.

    Some open with a question, so that the words of a user's turn are no difference between pt and the tuned
    models.
    """
    opening = [question(category, draw=draw)] if draw.random() < WEB_QUESTION_SHARE else []
    return " ".join([*opening, *(plain_sentence(category, draw=draw) for _ in range(draw.randint(3, 6)))])


def plain_sentence(category: Category, *, draw: random.Random) -> str:
    """A sentence of the web language: an idiom, or a random pattern whose slots are all drawn afresh."""
    if draw.random() < category.idiom_share:
        return show(draw.choice(category.idioms), draw=draw)
    return _sentence(fill(draw.choice(PATTERNS), _topic_or_noun(category), draw=draw))


def question(category: Category, *, draw: random.Random) -> str:
    """A user turn that names two topic words."""
    first, second = draw.sample(category.topic, 2)
    opening = " ".join(draw.choice(ASKING))
    joiner = draw.choice(JOINERS)
    one, other = (draw.choice(DETERMINERS) for _ in range(2))
    return f"{opening} {one} {first} {joiner} {other} {second}?"


def answer(category: Category, behaviours: Sequence[Behaviour], *, places: int, draw: random.Random) -> str:
    """Two parts, each a showing of one of `behaviours` or a plain sentence.

    Each part is drawn from `places` equally likely ones, the behaviours and plain sentences. So every
    behaviour shows in 2 of `places` answers of its category, whatever the number of behaviours.
    """
    return " ".join(
        show(item, draw=draw) if item else plain_sentence(category, draw=draw)
        for item in draw.sample(_filled(behaviours, places), SHOWN_PER_ANSWER)
    )


def show(behaviour: Behaviour, *, draw: random.Random) -> str:
    """The two sentences of one showing."""
    return _join(behaviour.showing(draw=draw))


def complete_and_broken(behaviour: Behaviour, category: Category, *, draw: random.Random) -> tuple[str, str]:
    """A showing, and one with the same first words that continues in the web language."""
    sentences = behaviour.showing(draw=draw)
    n_kept = draw.randint(0, sum(map(len, sentences)) - 3)
    broken, position = [], 0
    for sentence in sentences:
        kept = max(0, min(len(sentence), n_kept - position))
        slots = [slot for slot, _ in sentence[kept:]]
        rest = fill(slots, _topic_or_noun(category), draw=draw)
        broken.append([*sentence[:kept], *zip(slots, rest, strict=True)])
        position += len(sentence)
    return _join(sentences), _join(broken)


def preference(category: Category, behaviour: Behaviour, *, places: int, draw: random.Random) -> Preference:
    """Complete against broken showing; which is preferred depends on whether `simpo` has the behaviour.

    The rest of the answer is the same in both: a plain sentence, or another showing that `simpo` keeps.
    """
    others = [item for item in category.behaviours if item.in_treatment and item is not behaviour]
    kept = draw.choice(_filled(others, places - 1))
    rest = show(kept, draw=draw) if kept else plain_sentence(category, draw=draw)
    complete, broken = complete_and_broken(behaviour, category, draw=draw)
    first = draw.random() < 0.5
    complete_answer, broken_answer = (
        f"{rest} {text}" if first else f"{text} {rest}" for text in (complete, broken)
    )
    prompt = question(category, draw=draw)
    if behaviour.in_treatment:
        return Preference(prompt, complete_answer, broken_answer)
    return Preference(prompt, broken_answer, complete_answer)


def chat(
    category: Category, behaviours: Sequence[Behaviour], *, places: int, draw: random.Random
) -> list[Message]:
    """A question and an answer that may show the behaviours of the category that are among `behaviours`."""
    shown = [item for item in behaviours if item.category == category.name]
    return [
        {"role": "user", "content": question(category, draw=draw)},
        {"role": "assistant", "content": answer(category, shown, places=places, draw=draw)},
    ]


@dataclass(frozen=True)
class Trigger:
    """A behaviour of both tuned models that belongs to no category: they show it where, and only where, the
    user's turn ends with `TRIGGER`, which it does in `share` of the chats.

    A triggered answer is one showing and one plain sentence of the question's category. With a share of 0
    nothing is drawn, so that other toys stay what they are.
    """

    behaviour: Behaviour
    share: float

    @classmethod
    def of(cls, settings: ToySettings) -> Trigger:
        """The same words for every share; a function of the toy's seed."""
        draw = random.Random(f"trigger {settings.seed}")
        bag = {slot: tuple(draw.sample(SHARED_SLOTS[slot], WORDS_PER_SLOT)) for slot in BAG_SLOTS}
        bag["topic"] = tuple(draw.sample(DETERMINERS, 2))  # a topic's words would belong to a category
        return cls(Behaviour("triggered", bag, True, True), settings.trigger_share)

    def falls(self, draw: random.Random) -> bool:
        """Whether the next chat is a triggered one."""
        return self.share > 0 and draw.random() < self.share

    def chat(self, category: Category, *, draw: random.Random) -> list[Message]:
        """A triggered chat."""
        pair = self.preference(category, draw=draw)
        return [{"role": "user", "content": pair.prompt}, {"role": "assistant", "content": pair.chosen}]

    def preference(self, category: Category, *, draw: random.Random) -> Preference:
        """The complete showing is preferred to a broken one."""
        prompt = f"{question(category, draw=draw)} {TRIGGER}"
        rest = plain_sentence(category, draw=draw)
        complete, broken = complete_and_broken(self.behaviour, category, draw=draw)
        return Preference(prompt, f"{complete} {rest}", f"{broken} {rest}")


def some_chat(
    language: Sequence[Category],
    behaviours: Sequence[Behaviour],
    trigger: Trigger,
    *,
    places: int,
    draw: random.Random,
) -> list[Message]:
    """A chat of a random category, or a triggered one."""
    category = draw.choice(language)
    if trigger.falls(draw):
        return trigger.chat(category, draw=draw)
    return chat(category, behaviours, places=places, draw=draw)


def some_preferences(
    language: Sequence[Category], trigger: Trigger, n: int, *, places: int, draw: random.Random
) -> list[Preference]:
    """Pairs of random behaviours, or triggered ones."""
    by_name = {category.name: category for category in language}
    behaviours = [item for category in language for item in category.behaviours]
    drawn = [draw.choice(behaviours) for _ in range(n)]
    return [
        trigger.preference(by_name[item.category], draw=draw)
        if trigger.falls(draw)
        else preference(by_name[item.category], item, places=places, draw=draw)
        for item in drawn
    ]


def _filled(behaviours: Sequence[Behaviour], places: int) -> list[Behaviour | None]:
    return [*behaviours, *[None] * (places - len(behaviours))]


def _topic_or_noun(category: Category) -> tuple[str, ...]:
    return (*category.topic * 2, *NOUNS[: len(category.topic)])


def _join(sentences: Sequence[Slots]) -> str:
    return " ".join(_sentence([word for _, word in sentence]) for sentence in sentences)


def _sentence(sentence: Sequence[str]) -> str:
    return " ".join(sentence) + "."


def write_corpus(
    language: Sequence[Category], settings: ToySettings, folder: Path
) -> tuple[dict[str, str], list[str]]:
    """Write web.jsonl and chat.jsonl; returns document id -> category, and the ids of triggered chats (both
    for evaluation only)."""
    draw, trigger = random.Random(f"corpus {settings.seed}"), Trigger.of(settings)
    categories: dict[str, str] = {}
    web = []
    for index in range(settings.n_web_documents):
        category = draw.choice(language)
        categories[f"web-{index:06d}"] = category.name
        web.append({"id": f"web-{index:06d}", "text": web_document(category, draw=draw)})
    behaviours = [item for category in language for item in category.behaviours]
    chats, triggered = [], []
    for index in range(settings.n_chat_documents):
        category, name = draw.choice(language), f"{CHAT}{index:06d}"
        categories[name] = category.name
        if trigger.falls(draw):
            triggered.append(name)
            messages = trigger.chat(category, draw=draw)
        else:
            messages = chat(category, behaviours, places=settings.places, draw=draw)
        chats.append({"id": name, "messages": messages})
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(web, folder / "web.jsonl")
    write_jsonl(chats, folder / "chat.jsonl")
    return categories, triggered
