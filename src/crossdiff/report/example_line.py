"""One line of a document with active tokens marked, for a theme of the first screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from crossdiff.report.formatting import visible

LENGTH = 75
"""About how many characters the line has."""
LONGEST_TOKEN = 40


def example_line(rows: Sequence[Any], words: Sequence[str]) -> list[dict[str, Any]]:
    """Pieces `{"text", "level"}` of the first document with most of `words`; level 0: not active.

    Line ends and inactive control tokens become spaces, and the text is cut at the line's length on both
    sides of the peak.
    """
    row = max(rows, key=lambda one: _n_words(one, words))
    first, last = around(row.tokens, int(row.peak))
    columns = (list(column)[first:last] for column in (row.tokens, row.codes, row.kinds))
    shown = [(_flat(token), float(code), kind) for token, code, kind in zip(*columns, strict=True)]
    peak = max([*(code for _, code, _ in shown), 0.0])
    pieces: list[dict[str, Any]] = []
    for text, code, kind in [("… ", 0.0, 0)] * (first > 0) + shown:
        level = round(code / peak, 2) if peak > 0 and code > 0 else 0.0
        words = text.lstrip() if level else (" " if kind else text)
        _append(pieces, text[: len(text) - len(words)] if level else "", 0.0)
        _append(pieces, words, level)
    _append(pieces, " …" if last < len(row.tokens) else "", 0.0)
    return pieces


def _append(pieces: list[dict[str, Any]], text: str, level: float) -> None:
    """Add `text` as a piece, or to the last piece of the same level."""
    if pieces and pieces[-1]["level"] == level:
        pieces[-1]["text"] += text
    elif text:
        pieces.append({"text": text, "level": level})


def around(tokens: Sequence[str], peak: int) -> tuple[int, int]:
    """The tokens [first, last) around the peak within `LENGTH` characters, alternating sides."""
    first = last = max(0, min(peak, len(tokens) - 1))
    budget = LENGTH
    while budget > 0 and (first > 0 or last < len(tokens)):
        if last < len(tokens):
            budget -= min(len(tokens[last]), LONGEST_TOKEN)
            last += 1
        if first > 0 and budget > 0:
            first -= 1
            budget -= min(len(tokens[first]), LONGEST_TOKEN)
    return first, last


def _n_words(row: Any, words: Sequence[str]) -> int:
    first, last = around(row.tokens, int(row.peak))
    text = "".join(list(row.tokens)[first:last]).lower()
    return sum(word in text for word in words)


def _flat(token: str) -> str:
    cut = token if len(token) <= LONGEST_TOKEN else f"{token[:LONGEST_TOKEN]}…"
    return visible(cut.replace("\r", " ").replace("\n", " ").replace("\t", " "))
