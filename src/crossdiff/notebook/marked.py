"""Texts with the tokens marked on which a latent is active: HTML in a notebook, plain text elsewhere."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import rows_of
from crossdiff.report.documents import display
from crossdiff.report.formatting import number, visible

if TYPE_CHECKING:
    import pandas as pd

OPEN, CLOSE = "«", "»"
"""Marks around active tokens in plain text."""
PALEST = 0.18
"""Opacity of the mark of the smallest code; the largest has 0.9."""
BOX = "white-space:pre-wrap;overflow-wrap:anywhere;margin:0.4em 0;padding:0.3em;border-left:3px solid #888"


@dataclass(frozen=True, repr=False)
class MarkedText:
    """One text as its tokens' display strings, with one code per token; 0 is not active.

    `peak` is the code with the strongest mark, `head` the line above the text.
    """

    tokens: Sequence[str]
    codes: Sequence[float]
    peak: float
    head: str = ""

    def __str__(self) -> str:
        """The text with runs of active tokens between `«` and `»`."""
        parts, inside = [], False
        for token, code in zip(self.tokens, self.codes, strict=True):
            if (code > 0) != inside:
                parts.append(CLOSE if inside else OPEN)
                inside = not inside
            parts.append(visible(display(token)))
        text = "".join(parts) + (CLOSE if inside else "")
        return f"{visible(self.head)}\n{text}" if self.head else text

    __repr__ = __str__

    def _repr_html_(self) -> str:
        """HTML with shaded tokens and the code on hover; texts are escaped."""
        spans = "".join(map(self._span, self.tokens, self.codes))
        head = f"<small>{_escaped(self.head)}</small>\n" if self.head else ""
        return f'<div style="{BOX}">{head}{spans}</div>'

    def _span(self, token: str, code: float) -> str:
        text = _escaped(display(token))
        if not code > 0:
            return text
        share = min(1.0, code / self.peak) if self.peak > 0 else 1.0
        shade = PALEST + (0.9 - PALEST) * share
        style = f"background:rgba(255,150,40,{shade:.2f});color:inherit"
        return f'<mark style="{style}" title="{code:.4g}">{text}</mark>'


@dataclass(frozen=True, repr=False)
class Examples:
    """The documents of one latent: `table` has one row each, as written by the documents step.

    Displayed in a notebook, and printed by `print`, as texts with the active tokens marked.
    """

    pair: str
    latent: int
    table: pd.DataFrame
    title: str = ""
    n_shown: int = 10

    def __len__(self) -> int:
        return len(self.table)

    def texts(self) -> list[MarkedText]:
        """Every document by falling code, marked relative to the highest."""
        rows: list[Any] = sorted(rows_of(self.table), key=lambda row: -row.peak_code)
        peak = max((float(row.peak_code) for row in rows), default=0.0)
        return [
            MarkedText(
                list(row.tokens), [float(code) for code in row.codes], peak,
                f"{row.document_id}, peak code {number(float(row.peak_code))}",
            )
            for row in rows
        ]  # fmt: skip

    @property
    def heading(self) -> str:
        """Pair, latent, label if any, and number of documents shown."""
        label = f": {self.title}" if self.title else ""
        return (
            f"{self.pair}, latent {self.latent}{label} "
            f"({min(self.n_shown, len(self))} of {len(self)} documents)"
        )

    def __str__(self) -> str:
        shown = self.texts()[: self.n_shown]
        return "\n\n".join([visible(self.heading), *map(str, shown)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        shown = "".join(text._repr_html_() for text in self.texts()[: self.n_shown])
        return f"<div><b>{_escaped(self.heading)}</b>{shown}</div>"


def _escaped(text: str) -> str:
    return html.escape(visible(text))
