"""Token ids and kinds of documents, which open with BOS where the tokenizer has one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossdiff.data.row_content import BadRecord, Record
from crossdiff.data.tokens import TokenKind
from crossdiff.models.chat import RenderedChat, TemplateRefusal, render


@dataclass(frozen=True)
class Tokenised:
    """One document's ids (int32) and kinds (uint8), cut at the context."""

    record: Record
    ids: np.ndarray
    kind: np.ndarray
    n_cut: int
    """Tokens beyond the context; estimated for the part of a long text that is not tokenised."""
    n_not_located: int = 0
    """Contents of a chat with an unknown place in the rendered text."""
    rendered: RenderedChat | None = None
    """The text that was tokenised; None where the document came as token ids."""
    ends: np.ndarray | None = None
    """Per token, the character of `rendered` after its last one; -1 for a BOS that was put first, and where
    the next token still reads the token's last character (its bytes)."""

    @property
    def has_text(self) -> bool:
        """Whether any token is neither BOS nor a template token."""
        return bool(np.isin(self.kind, (TokenKind.TEXT, TokenKind.SPECIAL)).any())


def tokenise(tokenizer: Any, batch: Sequence[Record], *, context: int) -> list[Tokenised | BadRecord]:
    """Tokenise documents, in order; a chat that the template refuses becomes a `BadRecord`."""
    prepared = [_prepare(tokenizer, record) for record in batch]
    texts = [item.text for item in prepared if isinstance(item, RenderedChat)]
    encoded = iter(_encode(tokenizer, texts, context))
    opens = _bos_to_put(tokenizer)
    special = np.array(sorted(set(tokenizer.all_special_ids)), dtype=np.int64)
    results: list[Tokenised | BadRecord] = []
    for record, item in zip(batch, prepared, strict=True):
        if isinstance(item, BadRecord):
            results.append(item)
            continue
        ends: np.ndarray | None = None
        if isinstance(item, RenderedChat):
            ids, offsets, beyond = next(encoded)
            ends = _read_to_the_end(offsets)
            is_chat = not isinstance(record.content, str)
            kind = _kinds(ids, offsets, item, special, is_chat=is_chat)
            # A template that writes a BOS anywhere gets no second one.
            writes_bos = is_chat and bool(
                ((ids == tokenizer.bos_token_id) & (kind == TokenKind.TEMPLATE)).any()
            )
            n_not_located = item.n_not_located
        else:
            ids, beyond, writes_bos, n_not_located = np.asarray(item, dtype=np.int64), 0, False, 0
            kind = np.where(np.isin(ids, special), TokenKind.SPECIAL, TokenKind.TEXT)
        opening = None if writes_bos else opens
        n_read = len(ids)
        ids, kind = _with_bos(ids, kind, tokenizer.bos_token_id, opening)
        n_cut = max(0, len(ids) - context) + beyond
        if ends is not None:
            ends = np.concatenate([np.full(len(ids) - n_read, -1), ends])[:context]
        ids, kind = ids[:context].astype(np.int32), kind[:context].astype(np.uint8)
        rendered = item if isinstance(item, RenderedChat) else None
        results.append(Tokenised(record, ids, kind, n_cut, n_not_located, rendered, ends))
    return results


def _read_to_the_end(offsets: np.ndarray) -> np.ndarray:
    """The end of every token's span, -1 where the next token has bytes of the last character too."""
    ends = offsets[:, 1].copy()
    ends[:-1][offsets[1:, 0] < ends[:-1]] = -1
    return ends


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
        return render(tokenizer, content, record.tools)  # type: ignore[arg-type]
    except TemplateRefusal as error:
        return BadRecord(
            f"{record.place}: {error}; mend it, or count and skip such chats with corpus.skip_bad=true"
        )


_CHARACTERS = 16
"""Characters per token of the context in the first attempt; few texts have more."""
_MARGIN = 64
"""Tokens beyond the context that are tokenised too, because cutting a text changes its last tokens."""


def _encode(tokenizer: Any, texts: list[str], context: int) -> list[tuple[np.ndarray, np.ndarray, int]]:
    """Ids, offsets, and the estimated tokens of the rest that is not tokenised."""
    wanted = [min(len(text), max(10_000, _CHARACTERS * context)) for text in texts]
    encoded: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    while todo := [number for number in range(len(texts)) if number not in encoded]:
        parts = _encoded(tokenizer, [texts[number][: wanted[number]] for number in todo])
        for number, (ids, offsets) in zip(todo, parts, strict=True):
            if wanted[number] == len(texts[number]) or len(ids) >= context + _MARGIN:
                encoded[number] = (ids, offsets)
            wanted[number] = min(len(texts[number]), 4 * wanted[number])
    return [(*encoded[n], _n_beyond(*encoded[n], len(text))) for n, text in enumerate(texts)]


def _n_beyond(ids: np.ndarray, offsets: np.ndarray, length: int) -> int:
    """Estimated tokens of the characters that were not tokenised, at the rate of the others."""
    n_read = int(offsets[-1, 1]) if len(ids) else length
    return round((length - n_read) * len(ids) / n_read) if n_read else 0


def _encoded(tokenizer: Any, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
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
    """Kinds of tokens: text where a token overlaps a content, else template."""
    if not is_chat:
        return np.where(np.isin(ids, special), TokenKind.SPECIAL, TokenKind.TEXT)
    kind = np.full(len(ids), int(TokenKind.TEMPLATE))
    for start, stop in chat.contents:
        kind[(offsets[:, 0] < stop) & (offsets[:, 1] > start)] = TokenKind.TEXT
    kind[np.isin(ids, special) & (kind == TokenKind.TEXT)] = TokenKind.SPECIAL
    return kind


def _bos_to_put(tokenizer: Any) -> int | None:
    """The id that opens a text; None where the tokenizer has no BOS, or where BOS is a turn marker.

    BOS is a turn marker where the template, and not the tokenizer, writes it before every message
    (SmolLM-Instruct).
    """
    bos = tokenizer.bos_token_id
    if bos is None or tokenizer.chat_template is None or bos in tokenizer("a")["input_ids"]:
        return bos
    turns = [{"role": role, "content": "a"} for role in ("user", "assistant", "user")]
    try:
        text = render(tokenizer, turns).text
    except TemplateRefusal:
        return bos
    return None if text.count(tokenizer.bos_token) >= len(turns) else bos


def _with_bos(
    ids: np.ndarray, kind: np.ndarray, bos: int | None, opening: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Ids and kinds with `opening` (if any) put first, and every BOS marked as BOS."""
    if bos is None or not len(ids):
        return ids, kind
    if opening is not None and ids[0] != opening:
        ids, kind = np.insert(ids, 0, opening), np.insert(kind, 0, 0)
    return ids, np.where(ids == bos, int(TokenKind.BOS), kind)
