"""What files say of the rows of imported activations, and what stays unknown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossdiff.data.imported.rows import read_offsets, read_rows, with_files_beside, write_rows
from crossdiff.data.settings import ImportedSource
from crossdiff.data.tokens import TokenKind
from tests.data.imported.test_arrays import X, write_shards
from tests.model_folders import make_tokenizer

CHAT = [{"role": "user", "content": "the cat sat"}, {"role": "assistant", "content": "why"}]


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return make_tokenizer()


def source(**given: object) -> ImportedSource:
    return ImportedSource(activations={"base": "x.npy"}, **given)  # type: ignore[arg-type]


def saved(path: Path, values: object) -> str:
    np.save(path, np.asarray(values))
    return str(path)


def texts(path: Path, *rows: dict) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_texts_and_chats_tell_ids_documents_and_template(tmp_path: Path, tokenizer: Any) -> None:
    path = texts(tmp_path / "t.jsonl", {"text": "the cat", "id": "a"}, {"messages": CHAT, "id": "a"})
    first = tokenizer("the cat", add_special_tokens=False)["input_ids"]
    chat = tokenizer.apply_chat_template(CHAT, return_dict=True)["input_ids"]
    n_rows = 1 + len(first) + len(chat)
    rows = read_rows(source(texts=path), n_rows, tokenizer)
    tokens = write_rows(rows, tmp_path / "set", identity="")
    assert tokens.ids.tolist() == [tokenizer.bos_token_id, *first, *chat]
    assert tokens.offsets.tolist() == [0, 1 + len(first), n_rows]
    assert (tokens.document_ids, tokens.unknown) == (["a", "a~2"], frozenset())
    assert tokens.kind[[0, 1 + len(first)]].tolist() == [TokenKind.BOS, TokenKind.BOS]
    assert int((tokens.kind == TokenKind.TEMPLATE).sum()) > 4
    assert tokens.details["notices"] == []


def test_ids_tell_bos_and_special_tokens_and_leave_the_template_unknown(
    tmp_path: Path, tokenizer: Any
) -> None:
    bos, turn = tokenizer.bos_token_id, tokenizer.convert_tokens_to_ids("<start_of_turn>")
    asked = source(
        ids=saved(tmp_path / "i", [bos, 9, turn, bos, 8]), offsets=saved(tmp_path / "o", [0, 3, 5])
    )
    asked = asked.model_copy(update={"ids": f"{asked.ids}.npy", "offsets": f"{asked.offsets}.npy"})
    tokens = write_rows(read_rows(asked, 5, tokenizer), tmp_path / "set", identity="")
    text, special, begin = TokenKind.TEXT, TokenKind.SPECIAL, TokenKind.BOS
    assert tokens.kind.tolist() == [begin, text, special, begin, text]
    assert tokens.unknown == {"template"}
    assert tokens.can_be_shown
    kinds = saved(tmp_path / "k.npy", [1, 0, 2, 1, 0])
    tokens = write_rows(
        read_rows(asked.model_copy(update={"kinds": kinds}), 5, tokenizer), tmp_path / "k", identity=""
    )
    assert (tokens.kind.tolist(), tokens.unknown) == ([1, 0, 2, 1, 0], frozenset())


def test_nothing_given_is_nothing_guessed(tmp_path: Path) -> None:
    tokens = write_rows(read_rows(source(), 1200, None), tmp_path / "set", identity="")
    assert tokens.unknown == {"ids", "documents", "bos", "template"}
    assert (set(tokens.ids.tolist()), set(tokens.kind.tolist())) == ({-1}, {TokenKind.TEXT})
    assert tokens.offsets.tolist() == [0, 512, 1024, 1200]  # to read and to hold out, no documents
    assert tokens.details["n_documents"] is None
    assert not tokens.can_be_shown
    assert len(tokens.details["notices"]) == 4
    with pytest.raises(ValueError, match="no token ids"):
        _ = tokens.tokenizer


def test_offsets_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    for values, said in (
        ([0, 3, 12], "shorter than its offsets: 10 rows"),
        ([0, 3, 8], "longer than its offsets: 10 rows"),
        ([1, 10], "has to rise from 0"),
        ([0, 4, 4, 10], "has to rise from 0"),
        ([0], "has to rise from 0"),
        ([0.0, 10.0], "one whole number per row"),
        ([[0, 10]], "one whole number per row"),
    ):
        with pytest.raises(ValueError, match=said):
            read_offsets(saved(tmp_path / "o.npy", values), 10)


def test_ids_kinds_and_texts_that_do_not_fit_are_refused(tmp_path: Path, tokenizer: Any) -> None:
    ids, offsets = saved(tmp_path / "i.npy", [7, 8, 9, 7]), saved(tmp_path / "o.npy", [0, 2, 4])
    path = texts(tmp_path / "t.jsonl", {"text": "the"}, {"text": "the cat sat"})
    for given, n_rows, said in (
        ({"ids": ids}, 5, "has 4 entries for 5 rows"),
        ({"ids": saved(tmp_path / "far.npy", [7, 10**6])}, 2, "has 1000000; the tokenizer's ids are 0 to"),
        ({"ids": ids, "kinds": saved(tmp_path / "k.npy", [0, 1, 2, 4])}, 4, "has 4; kinds are 0 to 3"),
        ({"texts": path}, 9, "tokens for 9 rows"),
        ({"texts": path, "offsets": offsets}, 4, "document 1 of .* has 4 tokens and 2 rows"),
        ({"texts": path, "offsets": saved(tmp_path / "p.npy", [0, 4])}, 4, "has 2 documents and .* 1"),
        ({"texts": texts(tmp_path / "none.jsonl")}, 4, "has no text"),
    ):
        with pytest.raises(ValueError, match=said):
            read_rows(source(**given), n_rows, tokenizer)


def test_shard_folders_bring_their_tokens_and_ranges(tmp_path: Path) -> None:
    """tokens.pt and sequence_ranges.pt lie beside the folders of the submodules."""
    for name in ("base", "tuned"):
        write_shards(tmp_path / name / "layer_13_out", X, (14,))
        torch.save(torch.arange(14), tmp_path / name / "tokens.pt")
        torch.save(torch.tensor([0, 6, 14]), tmp_path / name / "sequence_ranges.pt")
    given = ImportedSource(activations={n: str(tmp_path / n / "layer_13_out") for n in ("base", "tuned")})
    found = with_files_beside(given)
    assert (found.ids, found.offsets) == (f"{tmp_path}/base/tokens.pt", f"{tmp_path}/base/sequence_ranges.pt")
    assert read_offsets(str(found.offsets), 14).tolist() == [0, 6, 14]
    assert with_files_beside(given.model_copy(update={"texts": "t.jsonl"})).ids is None
    torch.save(torch.arange(14) + 1, tmp_path / "tuned" / "tokens.pt")
    with pytest.raises(ValueError, match="row i is another token"):
        with_files_beside(given)
