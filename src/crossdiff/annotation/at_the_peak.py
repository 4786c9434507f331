"""What stands at the peaks of a latent: a phrase, or a habit of chat models."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from crossdiff.annotation.subjects import Example
from crossdiff.annotation.tokens_to_words import WORD, text_of

_MOST = 0.5
"""Share of the documents' weight on which a phrase or a habit has to stand."""
MAX_PHRASE = 5
"""Words of the longest phrase that is looked for at the peaks."""
HABITS = {"refusal": "refuse", "closing": "goodbye", "formatting": "<markup>"}
"""Habits of chat models -> a cue or signal of the category that is about them, where the taxonomy has one."""
_REFUSAL = re.compile(
    r"(?:i[’']?m|i am|we are|we[’']re) (?:very |so |really )?(?:sorry|afraid|unable)|sorry[,.]? (?:but )?i\b"
    r"|\bi (?:can[’']?t|cannot|can not|won[’']?t|will not|am not able to|[’']m not able to) "
    r"(?:\w+ )?(?:help|assist|provide|do|comply|answer|fulfil|support|share|give|write|discuss|create)"
)
_CLOSING = re.compile(
    r"\b(?:i )?hope (?:that|this|it) helps?|let me know if|feel free to (?:ask|reach)|happy to help"
    r"|have a (?:great|nice|good|lovely) (?:day|one|time|evening|week)|anything else (?:i|you)|good luck\b"
)
_LINE_MARK = re.compile(r"\s*(?:[-*•+#>]{1,6}|\d{1,2}[.)]|\|)(?=\s|\*|$)")


def peak_span(example: Example) -> tuple[str, int, int]:
    """The window's text, and where the peak token stands in it."""
    text, ends = text_of(example)
    return text, ends[example.peak - 1] if example.peak else 0, ends[example.peak]


def habit(example: Example) -> str | None:
    """The habit on which the peak stands: `refusal`, `closing`, `formatting` (a mark that opens a line)."""
    text, start, end = peak_span(example)
    for name, pattern in (("refusal", _REFUSAL), ("closing", _CLOSING)):
        if any(
            match.start() < end and start < _sentence_end(text, match.end())
            for match in pattern.finditer(text)
        ):
            return name
    after_break = text.rfind("\n", 0, end) + 1
    mark = _LINE_MARK.match(text, after_break)
    return "formatting" if mark and start < mark.end() else None


def _sentence_end(text: str, place: int) -> int:
    """Where the sentence around `place` ends, its mark included."""
    stop = re.compile(r"[.!?\n]").search(text, place)
    return stop.end() if stop else len(text)


def peak_phrases(example: Example) -> Iterator[tuple[str, ...]]:
    """Runs of words that hold the word at the peak (or the one before it, for a mark), on its line."""
    text, start, end = peak_span(example)
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
    """The longest phrase at the peaks of most documents by weight; () where there is none."""
    share, support = Counter[tuple[str, ...]](), Counter[tuple[str, ...]]()
    for held, weight in zip(phrases, weights.tolist(), strict=True):
        for phrase in held:
            share[phrase] += weight
            support[phrase] += 1
    least = _MOST * float(weights.sum())
    common = [p for p in share if share[p] >= least and support[p] >= min_documents]
    return max(common, key=lambda phrase: (len(phrase), share[phrase], phrase), default=())


def main_habit(habits: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Per stack the habit of most documents by weight, as an index into HABITS; -1 where there is none."""
    total = np.maximum(weights.sum(1), 1e-12)
    shares = np.stack([(weights * (habits == index)).sum(1) / total for index in range(len(HABITS))], 1)
    return np.where(shares.max(1) >= _MOST, shares.argmax(1), -1)
