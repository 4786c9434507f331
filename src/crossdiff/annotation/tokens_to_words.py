"""Tokens to words: sub-words merged, each word weighted by the code around it."""

from __future__ import annotations

import re
from bisect import bisect_right
from functools import cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from crossdiff.annotation.subjects import Document, Example
from crossdiff.data.tokens import TokenKind

WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_BREAK = " \n "
"""Stands for a token that is not text (BOS, template), so that words never run across it."""


@cache
def stem(word: str) -> str:
    """A word without its commonest English endings, so that `translated` meets the cue `translate`."""
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
    """The document's text, lower case, non-text tokens as breaks, and where each token ends in it."""
    pieces = [
        token.lower() if kind == TokenKind.TEXT else _BREAK
        for token, kind in zip(document.tokens, document.kinds.tolist(), strict=True)
    ]
    return "".join(pieces), list(accumulate(map(len, pieces)))


def word_weights(text: str, ends: list[int], weights: NDArray[np.float32]) -> dict[str, float]:
    """Each distinct word -> the largest weight of any token it touches."""
    values = weights.tolist()
    last = len(values) - 1
    found: dict[str, float] = {}
    for match in WORD.finditer(text):
        first = bisect_right(ends, match.start())
        final = min(bisect_right(ends, match.end() - 1), last)
        weight = values[first] if first == final else max(values[first : final + 1])
        word = match.group()
        if weight > found.get(word, -1.0):
            found[word] = weight
    return found


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
