"""The token set of imported activations, from files of ids, texts, documents and kinds.

What no file gives is named in the token set as unknown, and columns that need it stay empty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossdiff.data.build import unique_documents
from crossdiff.data.corpus import FilesSource
from crossdiff.data.imported.arrays import StoredArray, open_array
from crossdiff.data.order import BLOCK_ROWS
from crossdiff.data.records import records
from crossdiff.data.row_content import BadRecord, Record
from crossdiff.data.settings import ImportedSource
from crossdiff.data.tokenise import Tokenised, tokenise
from crossdiff.data.tokens import TokenKind, TokenSet, Unknown, write_token_set

NO_CUT = 1 << 40
BATCH = 256
BESIDE = {"ids": "tokens.pt", "offsets": "sequence_ranges.pt"}
"""Files of crosscoder_learning, in a model's folder of shards or beside it."""


def with_files_beside(source: ImportedSource) -> ImportedSource:
    """The source; where ids or offsets are not given, with those in or beside its shard folders."""
    beside: dict[str, str] = {}
    for role, name in BESIDE.items():
        if getattr(source, role) is not None or (role == "ids" and source.texts is not None):
            continue
        folders = [Path(text).expanduser() for text in source.activations.values()]
        for folder in filter(Path.is_dir, folders):
            near = next((path for path in (folder / name, folder.parent / name) if path.is_file()), None)
            if near is not None:
                beside.setdefault(role, str(near))
                _refuse_other(Path(beside[role]), near)
    return source.model_copy(update=beside)


def _refuse_other(first: Path, other: Path) -> None:
    if first == other or first.read_bytes() == other.read_bytes():
        return
    # The same tokens stored on another device have other bytes.
    one, another = (open_array(str(path), names=("ids",)).whole() for path in (first, other))
    if not torch.equal(one.long(), another.long()):
        raise ValueError(
            f"{first} and {other} differ, so row i is another token in one of the models; give activations "
            "of the same tokens"
        )


def open_vector(text: str, role: str, n_rows: int) -> StoredArray:
    """A file of one whole number per row; ValueError for another shape or type."""
    array = open_array(text, names=(role,))
    if len(array.shape) != 1 or array.dtype.is_floating_point or array.dtype == torch.bool:
        raise ValueError(
            f"source.{role}={text} has {str(array.dtype).removeprefix('torch.')} of shape "
            f"{list(array.shape)}; it needs one whole number per row, [{n_rows}]"
        )
    if role != "offsets" and array.n_rows != n_rows:
        raise ValueError(
            f"source.{role}={text} has {array.n_rows:,} entries for {n_rows:,} rows of activations; give one "
            "per row, without padding"
        )
    return array


def read_offsets(text: str, n_rows: int) -> Tensor:
    """Document boundaries (int64) from 0 to `n_rows`; ValueError for documents without a row."""
    offsets = open_vector(text, "offsets", n_rows).whole().long()
    if Path(text).name == BESIDE["offsets"]:  # a document without a stored row repeats its boundary
        offsets = torch.unique_consecutive(offsets)
    if len(offsets) < 2 or int(offsets[0]) != 0 or bool((offsets.diff() <= 0).any()):
        raise ValueError(
            f"source.offsets={text} has to rise from 0 to the number of rows, one entry more than there are "
            f"documents; it begins {offsets[:4].tolist()}"
        )
    last = int(offsets[-1])
    if last != n_rows:
        word = "shorter than its offsets" if last > n_rows else "longer than its offsets"
        raise ValueError(
            f"the activations are {word}: {n_rows:,} rows, and source.offsets={text} ends at {last:,}; give "
            "the whole file, or the offsets of these rows"
        )
    return offsets


@dataclass
class Rows:
    """Ids, kinds and documents of `n_rows` rows, as far as known."""

    n_rows: int
    ids: Tensor | None = None
    kind: Tensor | None = None
    offsets: Tensor | None = None
    names: Sequence[str] = ()
    """Document ids, where texts gave them."""
    unknown: frozenset[Unknown] = frozenset()


def read_rows(source: ImportedSource, n_rows: int, tokenizer: Any) -> Rows:
    """Read ids, offsets and kinds; `tokenizer` is None where neither ids nor texts are given."""
    rows = Rows(n_rows)
    if source.offsets is not None:
        rows.offsets = read_offsets(source.offsets, n_rows)
    if source.texts is not None:
        _tokenised(rows, source.texts, tokenizer)
    elif source.ids is not None:
        rows.ids = open_vector(source.ids, "ids", n_rows).whole().long()
        _check_range(rows.ids, len(tokenizer), f"source.ids={source.ids}", "the tokenizer's ids are")
        rows.kind = _kinds_of_ids(rows.ids, tokenizer)
    missing: dict[Unknown, bool] = {
        "ids": rows.ids is None,
        "documents": rows.offsets is None,
        "bos": rows.kind is None,
        "template": source.texts is None,
    }
    if source.kinds is not None:
        rows.kind = open_vector(source.kinds, "kinds", n_rows).whole().long()
        _check_range(rows.kind, len(TokenKind), f"source.kinds={source.kinds}", "kinds are")
        missing |= {"bos": False, "template": False}
    rows.unknown = frozenset(name for name, is_missing in missing.items() if is_missing)
    return rows


def _check_range(values: Tensor, stop: int, what: str, rule: str) -> None:
    wrong = values[(values < 0) | (values >= stop)]
    if len(wrong):
        raise ValueError(f"{what} has {int(wrong[0])}; {rule} 0 to {stop - 1:,}; give the file of these rows")


def _kinds_of_ids(ids: Tensor, tokenizer: Any) -> Tensor:
    """Kinds that ids determine: BOS and special; template tokens count as text."""
    kind = torch.full_like(ids, TokenKind.TEXT)
    kind[torch.isin(ids, torch.tensor(sorted(set(tokenizer.all_special_ids))))] = TokenKind.SPECIAL
    if tokenizer.bos_token_id is not None:
        kind[ids == tokenizer.bos_token_id] = TokenKind.BOS
    return kind


def _tokenised(rows: Rows, texts: str, tokenizer: Any) -> None:
    """Fill in `rows` from the texts; ValueError where a document's tokens and rows differ in number."""
    documents = _documents(texts, tokenizer)
    lengths = torch.tensor([len(item.ids) for item in documents])
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    way_out = "with BOS and without cutting; give source.ids, the token of every row"
    if rows.offsets is not None:
        if len(rows.offsets) != len(offsets):
            raise ValueError(
                f"source.texts={texts} has {len(documents):,} documents and source.offsets "
                f"{len(rows.offsets) - 1:,}; give the texts of these documents"
            )
        wrong = (rows.offsets.diff() != lengths).nonzero().flatten()
        if len(wrong):
            first = int(wrong[0])
            raise ValueError(
                f"document {first} of source.texts={texts} has {int(lengths[first])} tokens and "
                f"{int(rows.offsets.diff()[first])} rows, counted {way_out}"
            )
    elif int(offsets[-1]) != rows.n_rows:
        raise ValueError(
            f"source.texts={texts} has {int(offsets[-1]):,} tokens for {rows.n_rows:,} rows, "
            f"counted {way_out}"
        )
    rows.ids = torch.cat([torch.from_numpy(item.ids) for item in documents]).long()
    rows.kind = torch.cat([torch.from_numpy(item.kind) for item in documents]).long()
    rows.offsets, rows.names = offsets, [item.record.id for item in documents]


def _documents(texts: str, tokenizer: Any) -> list[Tokenised]:
    given: list[Record] = []
    for record in records(FilesSource(name="texts", paths=(texts,), txt="line"), organism=None):
        if isinstance(record, BadRecord):
            raise record
        given.append(record)
    tokenised: list[Tokenised] = []
    for start in range(0, len(given), BATCH):
        for item in tokenise(tokenizer, given[start : start + BATCH], context=NO_CUT):
            if isinstance(item, BadRecord):
                raise item
            if not len(item.ids):
                raise ValueError(f"{item.record.place} is an empty text; leave it out, or give source.ids")
            tokenised.append(item)
    if not tokenised:
        raise ValueError(f"source.texts={texts} has no text; give the documents of the rows")
    return tokenised


def write_rows(rows: Rows, folder: Path, *, identity: str) -> TokenSet:
    """The token set of these rows; unknown ids are -1, and blocks replace unknown documents."""
    offsets = rows.offsets
    if offsets is None:
        offsets = torch.cat([torch.arange(0, rows.n_rows, BLOCK_ROWS), torch.tensor([rows.n_rows])])
    names = rows.names or [f"rows {a} to {b - 1}" for a, b in pairwise(offsets.tolist())]
    kind = torch.full((rows.n_rows,), TokenKind.TEXT) if rows.kind is None else rows.kind
    counts = torch.bincount(kind, minlength=len(TokenKind)).tolist()
    notices = list(missing_notices(rows.unknown))
    return write_token_set(
        folder,
        documents=unique_documents([(name, "files") for name in names]),
        ids=torch.full((rows.n_rows,), -1) if rows.ids is None else rows.ids,
        offsets=offsets,
        kind=kind,
        details={
            "identity": identity,
            "n_documents": None if "documents" in rows.unknown else len(offsets) - 1,
            "n_tokens": rows.n_rows,
            "tokens_per_kind": {kind.name.lower(): counts[kind] for kind in TokenKind},
            "sources": {},
            "unknown": sorted(rows.unknown),
            "notices": notices,
        },
    )


def missing_notices(unknown: frozenset[Unknown]) -> list[str]:
    """Sentences on what is unknown, what stays empty, and which setting helps."""
    texts: dict[Unknown, str] = {
        "ids": "no token ids and no texts: no document can be shown or labelled (source.ids, .texts)",
        "documents": (
            "no document offsets: no latent has an interval or a count of documents, none is exclusive, "
            f"and blocks of {BLOCK_ROWS} rows are held out of training in place of documents (source.offsets)"
        ),
        "bos": "BOS is unknown and is trained on like any other row, if it is there (source.ids or .kinds)",
        "template": "no template marks: the shares of the template are empty (source.kinds, chats as texts)",
    }
    return [text for name, text in texts.items() if name in unknown]
