"""What words cannot show: script, code, markup, numbers, template tokens."""

from __future__ import annotations

import re

import numpy as np

from crossdiff.annotation.subjects import Document, Example
from crossdiff.data.tokens import TokenKind

_CODE = re.compile(r"[{}();=<>\[\]_`\\]")
_MARKUP = re.compile(r"(?m)^\s*(?:[-*•|#]|\d+[.)])|\|")
_FOREIGN = re.compile(r"[^\W\d_\u0000-\u024f]")
_LETTER = re.compile(r"[^\W\d_]")
_NUMBER = re.compile(r"[\d+*/%^=]")

CODE_SHARE, NUMBER_SHARE, FOREIGN_SHARE, TEMPLATE_SHARE = 0.06, 0.12, 0.3, 0.5
"""Share of characters (of letters for script, of the code's sum for template) from which a signal is on."""
MARKUP_LINES = 3
"""Number of list, table or heading marks from which the markup signal is on."""


def signals(document: Document, text: str) -> list[str]:
    """Names of the signals that are on in this window, in the spelling of `taxonomy.scheme.Signal`."""
    found = []
    solid = max(len(text) - text.count(" "), 1)
    if len(_CODE.findall(text)) / solid > CODE_SHARE:
        found.append("code")
    if len(_MARKUP.findall(text)) >= MARKUP_LINES:
        found.append("markup")
    if len(_NUMBER.findall(text)) / solid > NUMBER_SHARE:
        found.append("numbers")
    if not text.isascii() and len(_FOREIGN.findall(text)) > FOREIGN_SHARE * len(_LETTER.findall(text)):
        found.append("foreign_script")
    if isinstance(document, Example) and _template_share(document) > TEMPLATE_SHARE:
        found.append("template")
    return found


def _template_share(example: Example) -> float:
    total = float(example.codes.sum())
    on_template = float(example.codes[np.asarray(example.kinds) != TokenKind.TEXT].sum())
    return on_template / total if total > 0 else 0.0
