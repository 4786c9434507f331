"""Documents, chats and preference pairs of the toy language, and the corpus that all three models read.

Also the share of latents whose category is that of their documents: this truth is joined after assignment,
and nothing that labels latents may read it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import write_jsonl
from crossdiff.organisms.language import (
    ASKING,
    DETERMINERS,
    JOINERS,
    NOUNS,
    PATTERNS,
    Behaviour,
    Category,
    Slots,
    fill,
)
from crossdiff.organisms.settings import ToySettings

if TYPE_CHECKING:
    import pandas as pd


Message = dict[str, str]
NO_CATEGORY = (None, "other", "uninterpretable")
SHOWN_PER_ANSWER = 2
WEB_QUESTION_SHARE = 0.3


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


def _filled(behaviours: Sequence[Behaviour], places: int) -> list[Behaviour | None]:
    return [*behaviours, *[None] * (places - len(behaviours))]


def _topic_or_noun(category: Category) -> tuple[str, ...]:
    return (*category.topic * 2, *NOUNS[: len(category.topic)])


def _join(sentences: Sequence[Slots]) -> str:
    return " ".join(_sentence([word for _, word in sentence]) for sentence in sentences)


def _sentence(sentence: Sequence[str]) -> str:
    return " ".join(sentence) + "."


def write_corpus(language: Sequence[Category], settings: ToySettings, folder: Path) -> dict[str, str]:
    """Write web.jsonl and chat.jsonl; returns document id -> category (for evaluation only)."""
    draw = random.Random(f"corpus {settings.seed}")
    categories: dict[str, str] = {}
    web = []
    for index in range(settings.n_web_documents):
        category = draw.choice(language)
        categories[f"web-{index:06d}"] = category.name
        web.append({"id": f"web-{index:06d}", "text": web_document(category, draw=draw)})
    behaviours = [item for category in language for item in category.behaviours]
    chats = []
    for index in range(settings.n_chat_documents):
        category = draw.choice(language)
        categories[f"chat-{index:06d}"] = category.name
        messages = chat(category, behaviours, places=settings.places, draw=draw)
        chats.append({"id": f"chat-{index:06d}", "messages": messages})
    folder.mkdir(parents=True, exist_ok=True)
    write_jsonl(web, folder / "web.jsonl")
    write_jsonl(chats, folder / "chat.jsonl")
    return categories


def label_check(
    rows: Sequence[Mapping[str, Any]],
    examples: Mapping[str, pd.DataFrame],
    document_categories: Mapping[str, str],
) -> dict[str, Any]:
    """Figures over all exclusive latents, over those of the tuned models, and per pair.

    labelled = has a category, not `other`, `uninterpretable` or no answer; right = that category dominates
    the latent's top documents (ties all count). `rows` are annotations, `examples` each pair's table of
    examples.
    """
    dominating = {
        (pair, int(str(latent))): _dominating(part["document_id"], document_categories)
        for pair, table in examples.items()
        for latent, part in table[(table.subset == "explain") & (table.source == "top")].groupby("latent")
    }
    exclusive = [row for row in rows if row["role"].startswith("exclusive")]
    tuned = [row for row in exclusive if row["role"] == "exclusive_tuned"]
    groups = {"exclusive": exclusive, "exclusive_tuned": tuned}
    groups |= {pair: [row for row in tuned if row["pair"] == pair] for pair in examples}
    return {name: _figures(part, dominating) for name, part in groups.items()}


def _dominating(documents: Any, document_categories: Mapping[str, str]) -> set[str]:
    counts = Counter(document_categories[name] for name in documents if name in document_categories)
    most = max(counts.values(), default=0)
    return {name for name, count in counts.items() if count == most}


def _figures(
    rows: Sequence[Mapping[str, Any]], dominating: Mapping[tuple[str, int], set[str]]
) -> dict[str, Any]:
    labelled = [row for row in rows if row["category"] not in NO_CATEGORY]
    right = sum(row["category"] in dominating.get((row["pair"], row["latent"]), ()) for row in labelled)
    return {
        "n": len(rows),
        "n_labelled": len(labelled),
        "n_right": right,
        "share_labelled": len(labelled) / len(rows) if rows else None,
        "share_right": right / len(labelled) if labelled else None,
    }
