"""From documents to token ids with kinds; every document opens with BOS where the tokenizer has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdiff.data.records import BadRecord, Record
from crossdiff.data.tokens import TokenKind
from crossdiff.models.chat import RenderedChat, TemplateRefusal, render


@dataclass(frozen=True)
class Tokenised:
    """One document's ids (int32) and kinds (uint8), cut at the context."""

    record: Record
    ids: np.ndarray
    kind: np.ndarray
    n_cut: int
    """Tokens that the context cut off."""

    @property
    def has_text(self) -> bool:
        """Whether any token is left that is neither BOS nor the template's."""
        return bool(np.isin(self.kind, (TokenKind.TEXT, TokenKind.SPECIAL)).any())


def tokenise(tokenizer: Any, batch: Sequence[Record], *, context: int) -> list[Tokenised | BadRecord]:
    """Tokenise documents, in order; a chat that the template refuses comes back as a `BadRecord`."""
    prepared = [_prepare(tokenizer, record) for record in batch]
    texts = [item.text for item in prepared if isinstance(item, RenderedChat)]
    encoded = iter(_encode(tokenizer, texts))
    special = np.array(sorted(set(tokenizer.all_special_ids)), dtype=np.int64)
    found: list[Tokenised | BadRecord] = []
    for record, item in zip(batch, prepared, strict=True):
        if isinstance(item, BadRecord):
            found.append(item)
            continue
        if isinstance(item, RenderedChat):
            ids, offsets = next(encoded)
            kind = _kinds(ids, offsets, item, special, is_chat=not isinstance(record.content, str))
        else:
            ids = np.asarray(item, dtype=np.int64)
            kind = np.where(np.isin(ids, special), TokenKind.SPECIAL, TokenKind.TEXT)
        found.append(_finish(record, ids, kind, tokenizer.bos_token_id, context))
    return found


def _prepare(tokenizer: Any, record: Record) -> RenderedChat | BadRecord | list[int]:
    content = record.content
    if isinstance(content, str):
        return RenderedChat(content, [(0, len(content))])
    if content and isinstance(content[0], int):
        outside = [token for token in content if not 0 <= token < len(tokenizer)]  # type: ignore[operator]
        if outside:
            return BadRecord(
                f"{record.place} has token id {outside[0]}, the tokenizer has {len(tokenizer):,} tokens; "
                "tokenise it with this model's tokenizer"
            )
        return content  # type: ignore[return-value]
    try:
        return render(tokenizer, content)  # type: ignore[arg-type]
    except TemplateRefusal as error:
        return BadRecord(
            f"{record.place}: {error}; mend it, or count and skip such chats with corpus.skip_bad=true"
        )


def _encode(tokenizer: Any, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    if not texts:
        return []
    encoding = tokenizer(
        texts,
        add_special_tokens=False,
        return_offsets_mapping=True,
        return_attention_mask=False,
        verbose=False,
    )
    return [
        (np.asarray(ids, dtype=np.int64), np.asarray(offsets, dtype=np.int64).reshape(-1, 2))
        for ids, offsets in zip(encoding["input_ids"], encoding["offset_mapping"], strict=True)
    ]


def _kinds(
    ids: np.ndarray, offsets: np.ndarray, chat: RenderedChat, special: np.ndarray, *, is_chat: bool
) -> np.ndarray:
    """A token belongs to a content when their characters overlap; what lies outside is the template's."""
    if not is_chat:
        return np.where(np.isin(ids, special), TokenKind.SPECIAL, TokenKind.TEXT)
    kind = np.full(len(ids), int(TokenKind.TEMPLATE))
    for start, stop in chat.contents:
        kind[(offsets[:, 0] < stop) & (offsets[:, 1] > start)] = TokenKind.TEXT
    kind[np.isin(ids, special) & (kind == TokenKind.TEXT)] = TokenKind.SPECIAL
    return kind


def _finish(record: Record, ids: np.ndarray, kind: np.ndarray, bos: int | None, context: int) -> Tokenised:
    if bos is not None and len(ids):
        if ids[0] != bos:
            ids, kind = np.insert(ids, 0, bos), np.insert(kind, 0, 0)
        kind[0] = TokenKind.BOS
    n_cut = max(0, len(ids) - context)
    return Tokenised(record, ids[:context].astype(np.int32), kind[:context].astype(np.uint8), n_cut)
