"""Prompts per category with their judging rules: the built-in sets, or those of the toy language."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field

from crossdiff.organisms.documents import question
from crossdiff.organisms.language import build_language
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Settings

FILE = Path(__file__).with_name("prompts.yaml")


class PromptSet(Settings):
    """Prompts that may elicit one behaviour of a category."""

    name: str
    category: str
    behaviour: str
    """The behaviour in words, for the annotator as judge (study.judge=annotator)."""
    rule: Rule
    prompts: tuple[str, ...] = Field(min_length=1)


@dataclass(frozen=True)
class JudgedPrompt:
    """One prompt, its set and category, and the judge of its answer."""

    name: str
    category: str
    prompt: str
    shows: Callable[[str], bool]


@cache
def built_in() -> tuple[PromptSet, ...]:
    """The sets of prompts.yaml."""
    return tuple(PromptSet.model_validate(entry) for entry in yaml.safe_load(FILE.read_text())["sets"])


def built_in_prompts(n_prompts: int) -> list[JudgedPrompt]:
    """At most `n_prompts` of every set."""
    return [
        JudgedPrompt(prompt_set.name, prompt_set.category, prompt, prompt_set.rule.shows)
        for prompt_set in built_in()
        for prompt in prompt_set.prompts[:n_prompts]
    ]


def planted_prompts(toy: ToySettings, n_prompts: int) -> list[JudgedPrompt]:
    """Questions of every category of the toy language; an answer shows any behaviour of the category."""
    draw = random.Random(f"behaviour {toy.seed}")
    questions = []
    for category in build_language(toy):
        for _ in range(n_prompts):
            questions.append(
                JudgedPrompt(
                    category.name,
                    category.name,
                    question(category, draw=draw),
                    lambda answer, behaviours=category.behaviours: any(
                        behaviour.is_shown(answer) for behaviour in behaviours
                    ),
                )
            )
    return questions


def counts(questions: Sequence[JudgedPrompt], answers: Sequence[str]) -> list[dict[str, Any]]:
    """Category, answers that show the behaviour, and answers, per set."""
    shown = Counter[str]()
    given = Counter(asked.name for asked in questions)
    for asked, answer in zip(questions, answers, strict=True):
        shown[asked.name] += asked.shows(answer)
    category = {asked.name: asked.category for asked in questions}
    return [
        {"name": name, "category": category[name], "shown": shown[name], "n": n} for name, n in given.items()
    ]


class Says(Settings):
    """The answer has one of these phrases (lower case, straight apostrophes)."""

    kind: Literal["says"] = "says"
    words: tuple[str, ...] = Field(min_length=1)

    def shows(self, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        text = plain(answer)
        return any(re.search(rf"(?<!\w){re.escape(phrase)}(?!\w)", text) for phrase in self.words)


class Matches(Settings):
    """The answer matches a regular expression."""

    kind: Literal["matches"] = "matches"
    pattern: str

    def shows(self, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        return re.search(self.pattern, answer) is not None


class Mostly(Settings):
    """At least `share` of the answer's words are among these (function words of a language)."""

    kind: Literal["mostly"] = "mostly"
    words: tuple[str, ...] = Field(min_length=1)
    share: float = Field(default=0.12, gt=0, le=1)

    def shows(self, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        spoken = re.findall(r"\w+", plain(answer))
        return bool(spoken) and sum(word in self.words for word in spoken) / len(spoken) >= self.share


class AtMost(Settings):
    """The answer has 1 to `words` words."""

    kind: Literal["at_most"] = "at_most"
    words: int = Field(ge=1)

    def shows(self, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        return 1 <= len(answer.split()) <= self.words


class Without(Settings):
    """The answer is not empty and has none of these letters."""

    kind: Literal["without"] = "without"
    letters: str = Field(min_length=1)

    def shows(self, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        text = plain(answer).strip()
        return bool(text) and not set(text) & set(self.letters)


Rule = Annotated[Says | Matches | Mostly | AtMost | Without, Field(discriminator="kind")]


def plain(text: str) -> str:
    """Lower case with straight apostrophes."""
    return text.lower().replace("\u2019", "'")
