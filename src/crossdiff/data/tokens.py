"""Token sets: the sequence of token ids that all models of a comparison read, row for row."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from crossdiff.io.tables import read_json, read_versioned_json, write_json

FORMAT = "crossdiff.tokens"
VERSION = 1
Unknown = Literal["ids", "documents", "bos", "template"]
"""What may be unknown of the rows of imported activations."""
ALIGNED, PLACES, NO_PLACE = "aligned", "places.safetensors", -1
"""Of two tokenizers: folder of the second one's token set, its file of places, a row without a place."""
VALIDATION_SHARE = 0.05
"""Share of documents held out of training, chosen by the hash of the document id."""


class TokenKind(IntEnum):
    """Kind of a token; padding has none, because it is never stored."""

    TEXT = 0
    BOS = 1
    TEMPLATE = 2
    """Control tokens of the chat template: turn markers, role words, the newlines between them."""
    SPECIAL = 3
    """Special tokens of the tokenizer that neither open a document nor belong to the template."""


@dataclass(frozen=True)
class TokenSet:
    """Documents as one flat sequence; row i of every harvest is the activation of token i.

    Document n has tokens `offsets[n]` up to `offsets[n + 1]`.
    """

    ids: Int[Tensor, " token"]
    offsets: Int[Tensor, " boundary"]
    kind: Int[Tensor, " token"]
    document_ids: list[str]
    sources: list[str]
    token_hash: str
    folder: Path | None = None
    details: dict[str, Any] = field(default_factory=dict)
    _display: dict[int, str] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, folder: Path) -> TokenSet:
        """Read a finished `tokens` artifact; token arrays are memory-mapped."""
        from safetensors.torch import load_file

        details = _read_details(folder)
        arrays = load_file(folder / "tokens.safetensors")
        documents = read_json(folder / "documents.json")
        return cls(
            ids=arrays["ids"],
            offsets=arrays["offsets"],
            kind=arrays["kind"],
            document_ids=documents["ids"],
            sources=documents["sources"],
            token_hash=details["token_hash"],
            folder=folder,
            details=details,
        )

    @property
    def unknown(self) -> frozenset[Unknown]:
        """What is unknown of these tokens; empty for a tokenised corpus."""
        return frozenset(self.details.get("unknown", ()))

    @property
    def can_be_shown(self) -> bool:
        """Whether tokens have text and documents."""
        return not self.unknown & {"ids", "documents"}

    @property
    def n_tokens(self) -> int:
        """Number of tokens over all documents."""
        return len(self.ids)

    @property
    def n_documents(self) -> int:
        """Number of documents."""
        return len(self.document_ids)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return int(self.offsets.diff().max())

    def document_of(self, rows: Int[Tensor, " row"]) -> Int[Tensor, " row"]:
        """Index of each token's document (int64)."""
        return torch.searchsorted(self.offsets, rows, right=True) - 1

    @cached_property
    def place(self) -> Int[Tensor, " token"] | None:
        """Row of every token in the second tokenizer's set, else `NO_PLACE`; None for one tokenizer."""
        from safetensors.torch import load_file

        file = None if self.folder is None else self.folder / ALIGNED / PLACES
        return load_file(file)["place"] if file is not None and file.is_file() else None

    @cached_property
    def least_position(self) -> Int[Tensor, " token"]:
        """`position`, or that of the token's counterpart in the second tokenizer's set where it is lower."""
        if self.place is None:
            return self.position
        assert self.folder is not None
        other = TokenSet.open(self.folder / ALIGNED).position[self.place.clamp(min=0)]
        return torch.where(self.place == NO_PLACE, self.position, torch.minimum(self.position, other))

    @cached_property
    def validation(self) -> Bool[Tensor, " document"]:
        """`held_out_documents` of this set."""
        return held_out_documents(self.document_ids)

    @cached_property
    def held_out(self) -> Bool[Tensor, " token"]:
        """Tokens of held-out documents."""
        return torch.repeat_interleave(self.validation, self.offsets.diff())

    @property
    def position(self) -> Int[Tensor, " token"]:
        """Place of each token in its document, from 0 (int32)."""
        start = torch.repeat_interleave(self.offsets[:-1], self.offsets.diff())
        return (torch.arange(self.n_tokens) - start).to(torch.int32)

    def token_strings(self, ids: Sequence[int] | Int[Tensor, " token"]) -> list[str]:
        """Display strings of single tokens, by the artifact's tokenizer.

        Spaces and newlines are real characters; a part of a character is written as its bytes.
        """
        from crossdiff.models.tokenizers import display_strings

        wanted = [int(token) for token in ids]
        missing = [token for token in wanted if token not in self._display]
        if missing:
            self._display.update(display_strings(self.tokenizer, missing))
        return [self._display[token] for token in wanted]

    def token_names(self, ids: Sequence[int]) -> list[str]:
        """Names of these ids in the tokenizer's vocabulary, for messages."""
        return self.tokenizer.convert_ids_to_tokens(list(ids))

    def text_strings(self, ids: Int[Tensor, " token"]) -> list[str]:
        """Display strings of consecutive tokens, which joined are their text."""
        from crossdiff.models.tokenizers import text_strings

        self.token_strings(ids)
        return text_strings(self.tokenizer, ids.tolist(), self._display)

    @cached_property
    def tokenizer(self) -> Any:
        """The artifact's tokenizer, which made these ids."""
        from crossdiff.models.tokenizers import load_tokenizer

        if self.folder is None:
            raise ValueError("a token set without a folder has no tokenizer; open a finished tokens artifact")
        if "ids" in self.unknown:
            raise ValueError("these activations have no token ids, so there is no tokenizer; give source.ids")
        return load_tokenizer(str(self.folder / "tokenizer"))


def held_out_documents(document_ids: Sequence[str]) -> Bool[Tensor, " document"]:
    """Documents with a hash of the id below `VALIDATION_SHARE`; at least one of two or more."""
    if not document_ids:
        return torch.zeros(0, dtype=torch.bool)
    hashes = [int.from_bytes(hashlib.sha256(i.encode()).digest()[:6], "big") / 2**48 for i in document_ids]
    chosen = torch.tensor(hashes, dtype=torch.float64) < VALIDATION_SHARE
    if len(document_ids) > 1 and not chosen.any():
        chosen[min(range(len(hashes)), key=hashes.__getitem__)] = True
    return chosen


def token_hash(
    ids: Int[Tensor, " token"],
    offsets: Int[Tensor, " boundary"],
    kind: Int[Tensor, " token"],
    document_ids: Sequence[str],
) -> str:
    """sha256 over ids, offsets, kinds and document ids, which define row i of a harvest."""
    digest = hashlib.sha256()
    for array, dtype in ((ids, torch.int32), (offsets, torch.int64), (kind, torch.uint8)):
        digest.update(array.to(dtype).contiguous().numpy().data)
    digest.update("\n".join(document_ids).encode())
    return digest.hexdigest()


def write_token_set(
    folder: Path,
    *,
    documents: Sequence[tuple[str, str]],
    ids: Int[Tensor, " token"],
    offsets: Int[Tensor, " boundary"],
    kind: Int[Tensor, " token"],
    details: dict[str, Any] | None = None,
) -> TokenSet:
    """Write tokens.safetensors, documents.json and tokens.json; `documents` are (id, source) pairs."""
    from safetensors.torch import save_file

    names = [name for name, _ in documents]
    arrays = {
        "ids": ids.to(torch.int32).contiguous(),
        "offsets": offsets.to(torch.int64).contiguous(),
        "kind": kind.to(torch.uint8).contiguous(),
    }
    digest = token_hash(arrays["ids"], arrays["offsets"], arrays["kind"], names)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(arrays, folder / "tokens.safetensors", metadata={"format": FORMAT, "version": str(VERSION)})
    write_json({"ids": names, "sources": [source for _, source in documents]}, folder / "documents.json")
    record = {"format": FORMAT, "version": VERSION, "token_hash": digest, **(details or {})}
    write_json(record, folder / "tokens.json")
    return TokenSet.open(folder)


def _read_details(folder: Path) -> dict[str, Any]:
    path = folder / "tokens.json"
    if not path.is_file():
        raise ValueError(
            f"{folder} has no token set ({path.name} is missing); give a finished tokens artifact"
        )
    return read_versioned_json(path, format=FORMAT, version=VERSION, way_out="run the tokens step again")
