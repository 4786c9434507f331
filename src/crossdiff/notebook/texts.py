"""Texts and chats of the user's as a token set in memory, cut and marked as the corpus of a run is."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from crossdiff.data.order import kept_tokens
from crossdiff.data.row_content import BadRecord, Record, record_of
from crossdiff.data.settings import MaskSettings
from crossdiff.data.tokenise import Tokenised, tokenise
from crossdiff.data.tokens import TokenKind, TokenSet
from crossdiff.models.tokenizers import display_strings, text_strings

if TYPE_CHECKING:
    import pandas as pd

Text = str | Sequence[Mapping[str, Any]]
"""A text, or a chat as a list of messages with role and content."""


@dataclass(frozen=True)
class TokenisedTexts:
    """`tokens` with one document per text; `kept` marks the tokens that a crosscoder's training looks at."""

    tokens: TokenSet
    kept: Bool[Tensor, " token"]
    strings: list[str]

    def table(self) -> pd.DataFrame:
        """One row per token: text, position, token, kind (text, bos, template, special), kept."""
        import pandas as pd

        kinds = [TokenKind(kind).name.lower() for kind in self.tokens.kind.tolist()]
        return pd.DataFrame(
            {
                "text": self.tokens.document_of(torch.arange(self.tokens.n_tokens)).tolist(),
                "position": self.tokens.position.tolist(),
                "token": self.strings,
                "kind": kinds,
                "kept": self.kept.tolist(),
            }
        )


def tokenised(
    tokenizer: Any, texts: Text | Sequence[Text], *, mask: MaskSettings, context: int
) -> TokenisedTexts:
    """ValueError for no texts, an empty one, or what is neither text nor chat; cut texts warn."""
    documents: list[Tokenised] = []
    for number, item in enumerate(tokenise(tokenizer, records(texts), context=context)):
        if isinstance(item, BadRecord):
            raise ValueError(str(item))
        if not item.has_text:
            raise ValueError(f"texts[{number}] is empty: it holds no token of its own; leave it out")
        documents.append(item)
    if n_cut := sum(item.n_cut > 0 for item in documents):
        warnings.warn(
            f"{n_cut} of {len(documents)} texts are longer than {context} tokens and were cut there "
            "(context=... of open_pair)",
            stacklevel=4,
        )
    lengths = torch.tensor([0, *(len(item.ids) for item in documents)])
    tokens = TokenSet(
        ids=torch.from_numpy(np.concatenate([item.ids for item in documents])),
        offsets=lengths.cumsum(0),
        kind=torch.from_numpy(np.concatenate([item.kind for item in documents])),
        document_ids=[item.record.id for item in documents],
        sources=["texts"] * len(documents),
        token_hash="",
    )
    kept = kept_tokens(tokens, mask)
    if not bool(kept.any()):
        raise ValueError("the run's mask keeps no token of these texts; give longer ones")
    return TokenisedTexts(tokens, kept, _strings(tokenizer, documents))


def records(texts: Text | Sequence[Text]) -> list[Record]:
    """One record per text or chat, named by its number; a single one may stand without a list."""
    if isinstance(texts, str) or (isinstance(texts, Sequence) and _is_chat(texts)):
        texts = [texts]  # type: ignore[list-item]
    if not isinstance(texts, Sequence):
        raise ValueError(f"texts are {type(texts).__name__}; give a string, a chat, or a list of them")
    if not texts:
        raise ValueError("texts are an empty list; give at least one text")
    documents = []
    for number, text in enumerate(texts):
        if isinstance(text, str):
            row: dict[str, Any] = {"text": text}
        elif isinstance(text, Sequence) and _is_chat(text):
            row = {"messages": [dict(message) for message in text]}
        else:
            raise ValueError(
                f"texts[{number}] is {type(text).__name__}; give text, or a chat as a list of messages "
                "{'role': ..., 'content': ...}"
            )
        record = record_of(row, f"texts[{number}]", str(number), column=None, id_column=None)
        if isinstance(record, BadRecord):
            raise ValueError(str(record).partition("; ")[0])
        documents.append(record)
    return documents


def _is_chat(value: Sequence[Any]) -> bool:
    return len(value) > 0 and all(isinstance(item, Mapping) for item in value)


def _strings(tokenizer: Any, texts: Sequence[Tokenised]) -> list[str]:
    """Display strings of all tokens, one text after the other."""
    display = display_strings(tokenizer, [int(token) for item in texts for token in item.ids])
    return [text for item in texts for text in text_strings(tokenizer, item.ids.tolist(), display)]
