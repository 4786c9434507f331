"""Rules that judge whether an answer shows a behaviour: plain text tests, no model."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field

from crossdiff.settings import Settings


class Says(Settings):
    """The answer holds one of these phrases (lower case; curly apostrophes count as straight ones)."""

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
        found = re.findall(r"\w+", plain(answer))
        return bool(found) and sum(word in self.words for word in found) / len(found) >= self.share


class AtMost(Settings):
    """The answer has at most so many words, and at least one."""

    kind: Literal["at_most"] = "at_most"
    words: int = Field(ge=1)

    def shows(self, answer: str) -> bool:
        """Whether the answer shows the behaviour."""
        return 1 <= len(answer.split()) <= self.words


class Without(Settings):
    """The answer, which is not empty, has none of these letters."""

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
