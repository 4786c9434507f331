"""Features that the lexical annotator reads in a document: words, signals, phrase and habit at the peak.

Sub-words are merged into words. Signals (code, markup, numbers, ...) are what words cannot show. A habit is
one of chat models, such as refusing.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from crossdiff.annotation.subjects import Document, Example
from crossdiff.data.tokens import TokenKind

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_BREAK = " \n "
"""Replaces a token that is not text (BOS, template), so that no word crosses it."""


@cache
def stem(word: str) -> str:
    """A word without common English endings, so that `translated` matches the cue `translate`."""
    for ending, least in (("'s", 2), ("’s", 2), ("ing", 4), ("ied", 3), ("ies", 3), ("ed", 4), ("es", 4)):
        if word.endswith(ending) and len(word) - len(ending) >= least:
            return _close(word[: -len(ending)] + ("y" if ending in {"ied", "ies"} else ""))
    if word.endswith("s") and not word.endswith("ss") and len(word) > 3:
        return _close(word[:-1])
    return _close(word)


def _close(root: str) -> str:
    """Final e dropped and a doubled final consonant made single: bake/baking, stop/stopped."""
    if root.endswith("e") and len(root) > 4:
        return root[:-1]
    if len(root) > 4 and root[-1] == root[-2] and root[-1] not in "aeiouls":
        return root[:-1]
    return root


def text_of(document: Document) -> tuple[str, list[int]]:
    """The document's text in lower case with breaks for non-text tokens, and where each token ends."""
    pieces = [
        token.lower() if kind == TokenKind.TEXT else _BREAK
        for token, kind in zip(document.tokens, document.kinds.tolist(), strict=True)
    ]
    return "".join(pieces), list(accumulate(map(len, pieces)))


def word_weights(text: str, ends: list[int], weights: NDArray[np.float32]) -> dict[str, float]:
    """Distinct word -> the largest weight of the tokens it overlaps."""
    values = weights.tolist()
    last = len(values) - 1
    largest: dict[str, float] = {}
    for match in WORD.finditer(text):
        first = bisect_right(ends, match.start())
        final = min(bisect_right(ends, match.end() - 1), last)
        weight = values[first] if first == final else max(values[first : final + 1])
        word = match.group()
        if weight > largest.get(word, -1.0):
            largest[word] = weight
    return largest


def nearness(example: Example, *, decay: float) -> NDArray[np.float32]:
    """How close each token is to the latent's activity, 1 at its strongest place.

    The codes smoothed with `decay ** distance` (distance in tokens), divided by their maximum.
    """
    smooth = _kernel(len(example.codes), decay) @ example.codes
    largest = float(smooth.max(initial=0.0))
    return smooth / largest if largest > 0 else np.zeros_like(smooth)


@cache
def _kernel(length: int, decay: float) -> NDArray[np.float32]:
    place = np.arange(length)
    return (decay ** np.abs(place[:, None] - place[None, :])).astype(np.float32)


_CODE = re.compile(r"[{}();=<>\[\]_`\\]")
_MARKUP = re.compile(r"(?m)^\s*(?:[-*•|#]|\d+[.)])|\|")
_FOREIGN = re.compile(r"[^\W\d_\u0000-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"[\d+*/%^=]")

CODE_SHARE, NUMBER_SHARE, FOREIGN_SHARE, TEMPLATE_SHARE = 0.06, 0.12, 0.3, 0.5
"""Share of characters (script: of letters; template: of the sum of codes) above which a signal is on."""
MARKUP_LINES = 3
"""Number of list, table or heading marks from which the markup signal is on."""


def signals(document: Document, text: str) -> list[str]:
    """Names (`taxonomy.scheme.Signal`) of the signals that are on in this window."""
    names = []
    solid = max(len(text) - text.count(" "), 1)
    if len(_CODE.findall(text)) / solid > CODE_SHARE:
        names.append("code")
    if len(_MARKUP.findall(text)) >= MARKUP_LINES:
        names.append("markup")
    if len(_NUMBER.findall(text)) / solid > NUMBER_SHARE:
        names.append("numbers")
    if not text.isascii() and len(_FOREIGN.findall(text)) > FOREIGN_SHARE * len(_LETTER.findall(text)):
        names.append("foreign_script")
    if isinstance(document, Example) and _template_share(document) > TEMPLATE_SHARE:
        names.append("template")
    return names


def _template_share(example: Example) -> float:
    total = float(example.codes.sum())
    on_template = float(example.codes[np.asarray(example.kinds) != TokenKind.TEXT].sum())
    return on_template / total if total > 0 else 0.0


_MOST = 0.5
"""Least share of the documents' weight for a phrase or a habit."""
MAX_PHRASE = 5
"""Most words of a phrase at the peaks."""
HABITS = {"refusal": "refuse", "closing": "goodbye", "formatting": "<markup>"}
"""Habit of chat models -> a cue or signal of its category."""
_REFUSAL = re.compile(
    r"(?:\b(?:(?:i ?[’'] ?m|i am|we are|we ?[’'] ?re) )?(?:very |so |really )?"
    r"(?:sorry|afraid)\b[^!?\n]{0,40}?)?"
    r"(?:\b(?:(?:can ?[’']? ?t|cannot|can not|won ?[’']? ?t|will not"
    r"|(?:am|are|[’'] ?m|[’'] ?re) (?:unable|not able) to) (?:\w+ )?"
    r"(?:help|assist|provide|do|comply|answer|fulfil|support|share|give|write|discuss|create)\b"
    r"|(?:i|we) (?:must|have to|need to) (?:\w+ )?(?:decline|refuse)\b))"
)
"""A statement of not helping, with the apology before it; an apology alone is no refusal."""
_CLOSING = re.compile(
    r"\b(?:i )?hope (?:that|this|it) helps?|let me know if|feel free to (?:ask|reach)|happy to help"
    r"|have a (?:great|nice|good|lovely) (?:day|one|time|evening|week)|anything else (?:i|you)|good luck\b"
)
_LINE_MARK = re.compile(r"\s*(?:[-*•+#>]{1,6}|\d{1,2}[.)]|\|)(?=\s|\*|$)")


@dataclass(frozen=True, slots=True)
class Features:
    """Features of one window that do not depend on the annotator's settings."""

    text: str
    ends: list[int]
    signals: list[str]
    phrases: frozenset[tuple[str, ...]]
    habit: str | None


def features_of(example: Example) -> Features:
    """Text, signals, and phrases and habit at the peak."""
    text, ends = text_of(example)
    start = ends[example.peak - 1] if example.peak else 0
    end = ends[example.peak]
    phrases = frozenset(peak_phrases(text, start, end))
    return Features(text, ends, signals(example, text), phrases, habit(text, start, end))


class FeatureCache:
    """Cache of the examples' features for several annotators."""

    def __init__(self) -> None:
        # By `id`; keeping the example alive keeps its id from being used again.
        self._known: dict[int, tuple[Features, Example]] = {}

    def of(self, example: Example) -> Features:
        """Features of an example, computed once."""
        if id(example) not in self._known:
            self._known[id(example)] = (features_of(example), example)
        return self._known[id(example)][0]


def habit(text: str, start: int, end: int) -> str | None:
    """The habit at the peak, `text[start:end]`; None without one.

    `refusal` or `closing`, up to the end of the sentence, or `formatting` (a mark that opens a line).
    A peak on blanks (control token, line end) counts for the habit right before or after it.
    """
    first, last = start, end
    if not text[first:last].strip():
        start, end = len(text[:first].rstrip()) - 1, len(text) - len(text[last:].lstrip()) + 1
    for name, pattern in (("refusal", _REFUSAL), ("closing", _CLOSING)):
        if any(
            match.start() < end and start < _sentence_end(text, match.end())
            for match in pattern.finditer(text)
        ):
            return name
    mark = _LINE_MARK.match(text, text.rfind("\n", 0, last) + 1)
    return "formatting" if mark and first < mark.end() else None


def _sentence_end(text: str, place: int) -> int:
    """End of the sentence around `place`, with its mark."""
    stop = re.compile(r"[.!?\n]").search(text, place)
    return stop.end() if stop else len(text)


def peak_phrases(text: str, start: int, end: int) -> Iterator[tuple[str, ...]]:
    """Runs of words of the line with the word at the peak, `text[start:end]` (at a mark: before it)."""
    line_start, line_end = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    line = text[: line_end if line_end >= 0 else len(text)]
    words = list(WORD.finditer(line, line_start))
    places = [place for place, word in enumerate(words) if word.start() < end and word.end() > start - 2]
    if not places:
        return
    for first in range(max(places[-1] - MAX_PHRASE + 1, 0), places[-1] + 1):
        for last in range(places[-1], min(first + MAX_PHRASE, len(words))):
            yield tuple(word.group() for word in words[first : last + 1])


def common_phrase(
    phrases: Sequence[frozenset[tuple[str, ...]]], weights: NDArray[np.float64], min_documents: int
) -> tuple[str, ...]:
    """The longest phrase at most documents' peaks by weight; () without one."""
    share, support = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for present, weight in zip(phrases, weights.tolist(), strict=True):
        for phrase in present:
            share[phrase] += weight
            support[phrase] += 1
    least = _MOST * float(weights.sum())
    common = [p for p in share if share[p] >= least and support[p] >= min_documents]
    return max(common, key=lambda phrase: (len(phrase), share[phrase], phrase), default=())


def main_habit(habits: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Index into HABITS of most documents' habit by weight, per stack; -1 without one."""
    total = np.maximum(weights.sum(1), 1e-12)
    shares = np.stack([(weights * (habits == index)).sum(1) / total for index in range(len(HABITS))], 1)
    return np.where(shares.max(1) >= _MOST, shares.argmax(1), -1)
