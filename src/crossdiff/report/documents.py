"""The page's documents of a latent: the corpus' highest, then those given to the annotator; one as a line."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from crossdiff.data.examples import SAME, overlap, shingles
from crossdiff.io.tables import rows_of
from crossdiff.report.formatting import significant, visible

if TYPE_CHECKING:
    import pandas as pd


N_LEVELS = 255
MAX_TEXT = 6000
"""Most characters of a document in the page, around its peak."""
USES = {"explain": "given to the annotator", "score": "kept to check the label"}
NOT_USED = "not among the annotator's documents"
TOP = (
    "Highest of the whole corpus",
    "By falling peak code. Each says whether the annotator was given it.",
)
HIGHEST_COLLECTED = (
    "Highest of the documents collected for the annotator",
    "By falling peak code. This run did not record the corpus' highest documents; they may be higher.",
)
OTHERS = (
    "Other documents collected for the annotator",
    "From high peaks and from every quantile of the peaks, near-duplicates left out; by falling peak code.",
)


def by_latent(table: pd.DataFrame | None) -> dict[int, list[Any]]:
    """Latent -> its rows of a table of documents, by falling peak code."""
    rows: dict[int, list[Any]] = {}
    for row in falling(table):
        rows.setdefault(int(row.latent), []).append(row)
    return rows


@dataclass
class Shown:
    """A document of the page, with the ids of the documents nearly identical to it, its own included."""

    row: Any
    runs: frozenset[int]
    documents: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, row: Any) -> Shown:
        """A document, so far without near-duplicates."""
        return cls(row, frozenset(map(hash, shingles(row.tokens))), {str(row.document_id)})

    def takes(self, other: Shown) -> bool:
        """Whether `other` is the same document or a near-duplicate, by the rule of the documents stage."""
        return bool(self.documents & other.documents) or overlap(self.runs, other.runs) > SAME


def document_groups(top: Sequence[Any] | None, given: Sequence[Any], *, n_shown: int) -> dict[str, Any]:
    """Half of `n_shown` highest documents, then others of the annotator's, all by falling code.

    Without `top` (older runs) the highest of `given` replace it, with another title.
    """
    highest = distinct(given if top is None else top)[: -(-n_shown // 2)]
    others = distinct(given, shown=highest)
    chosen = spread(others, n_shown - len(highest))
    peak = max((float(np.max(one.row.codes, initial=0.0)) for one in (*highest, *chosen)), default=0.0)
    uses = {str(row.document_id): row for row in given}
    named = (
        (HIGHEST_COLLECTED if top is None else TOP, highest, len(highest)),
        (OTHERS, chosen, len(others)),
    )
    groups = [
        {
            "title": title if len(members) == n else f"{title} ({len(members)} of {n})",
            "note": note,
            "documents": [pack_document(one, peak, uses.get(str(one.row.document_id))) for one in members],
        }
        for (title, note), members, n in named
        if members
    ]
    return {"groups": groups, "peak": significant(peak)}


def falling(table: pd.DataFrame | None) -> list[Any]:
    """The rows by falling peak code (`rank` restarts in every subset and is no order)."""
    rows = [] if table is None else rows_of(table)
    return sorted(rows, key=lambda row: (-row.peak_code, str(row.document_id)))


def distinct(rows: Sequence[Any], *, shown: Sequence[Shown] = ()) -> list[Shown]:
    """The rows without near-duplicates of `shown` or earlier rows, which count them."""
    kept: list[Shown] = []
    for one in map(Shown.of, rows):
        like = next((other for other in (*shown, *kept) if other.takes(one)), None)
        if like is None:
            kept.append(one)
        else:
            like.documents |= one.documents
    return kept


def spread(documents: Sequence[Shown], count: int) -> list[Shown]:
    """`count` of the documents, evenly spread over their order, with the first."""
    if len(documents) <= count:
        return list(documents)
    return [documents[i * len(documents) // count] for i in range(count)]


def use_of(given: Any) -> str:
    """The annotator's use of a document, from its row of the examples (None: not given)."""
    if given is None:
        return NOT_USED
    kind = "a highest peak" if given.source == "top" else f"quantile {given.quantile}"
    return f"{USES.get(given.subset, given.subset)} ({kind})"


def pack_document(shown: Shown, peak: float, given: Any) -> dict[str, Any]:
    """One window: text once, `marks` [start, length, level] of active tokens, `template` [start, length]."""
    row = shown.row
    tokens, codes, kinds = list(row.tokens), [float(code) for code in row.codes], list(row.kinds)
    first, last = window(tokens, row.peak)
    marks, template, position = [], [], 0
    parts = [display(token) for token in tokens[first:last]]
    for token, code, kind in zip(parts, codes[first:last], kinds[first:last], strict=True):
        length = utf16_length(token)
        if code > 0 and peak > 0:
            level = min(N_LEVELS, max(1, math.ceil(code / peak * N_LEVELS)))
            space = len(token) - len(token.lstrip()) if token.strip() else 0
            marks.append([position + space, length - space, level])
        elif kind and template and template[-1][0] + template[-1][1] == position:
            template[-1][1] += length
        elif kind:
            template.append([position, length])
        position += length
    return {
        "id": str(row.document_id),
        "use": use_of(given),
        "n_like": len(shown.documents) - 1,
        "start": int(row.start) + first,
        "cut": len(tokens) - (last - first),
        "code": significant(float(row.peak_code)),
        "text": "".join(parts),
        "marks": marks,
        "template": template,
    }


def window(tokens: Sequence[str], peak: int) -> tuple[int, int]:
    """The tokens [first, last) around the peak within `MAX_TEXT` characters, at least the peak."""
    first = last = max(0, min(int(peak), len(tokens) - 1))
    budget = MAX_TEXT
    while budget > 0 and (first > 0 or last < len(tokens)):
        if last < len(tokens):
            budget -= len(tokens[last])
            last += 1
        if first > 0 and budget > 0:
            first -= 1
            budget -= len(tokens[first])
    return first, last


def display(token: str) -> str:
    """A token for the page, cut at `MAX_TEXT`."""
    return token if len(token) <= MAX_TEXT else token[:MAX_TEXT] + "…"


def utf16_length(text: str) -> int:
    """Length as JavaScript counts it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


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
