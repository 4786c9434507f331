"""Token sets: hashes, held-out documents, display strings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.data.tokens import TokenKind, TokenSet, held_out_documents, token_hash, write_token_set
from tests.model_folders import make_tokenizer


def write(folder: Path, **changes: object) -> TokenSet:
    values = {
        "documents": [("a", "web"), ("b", "chat")],
        "ids": torch.tensor([5, 6, 7, 8]),
        "offsets": torch.tensor([0, 3, 4]),
        "kind": torch.tensor([1, 0, 0, 1]),
    }
    return write_token_set(folder, **{**values, **changes})  # type: ignore[arg-type]


def test_documents_and_positions_follow_from_the_offsets(tmp_path: Path) -> None:
    tokens = write(tmp_path)
    assert tokens.document_of(torch.arange(4)).tolist() == [0, 0, 0, 1]
    assert tokens.position.tolist() == [0, 1, 2, 0]
    assert (tokens.n_tokens, tokens.n_documents, tokens.longest) == (4, 2, 3)
    assert tokens.sources == ["web", "chat"]
    assert tokens.kind.tolist() == [TokenKind.BOS, TokenKind.TEXT, TokenKind.TEXT, TokenKind.BOS]


def test_the_hash_changes_with_ids_offsets_kinds_and_names(tmp_path: Path) -> None:
    reference = write(tmp_path / "0").token_hash
    assert write(tmp_path / "1").token_hash == reference
    for number, change in enumerate(
        [
            {"ids": torch.tensor([5, 6, 7, 9])},
            {"offsets": torch.tensor([0, 2, 4])},
            {"kind": torch.tensor([1, 0, 2, 1])},
            {"documents": [("a", "web"), ("c", "chat")]},
        ]
    ):
        assert write(tmp_path / f"c{number}", **change).token_hash != reference


def test_the_hash_is_the_sha256_of_the_arrays_and_names() -> None:
    import hashlib

    expected = hashlib.sha256(
        (7).to_bytes(4, "little") + (0).to_bytes(8, "little") + (1).to_bytes(8, "little") + b"\x01" + b"a"
    )
    found = token_hash(torch.tensor([7]), torch.tensor([0, 1]), torch.tensor([1]), ["a"])
    assert found == expected.hexdigest()


def test_about_five_percent_of_documents_are_held_out_by_their_name_alone() -> None:
    names = [f"doc{n}" for n in range(4000)]
    chosen = held_out_documents(names)
    assert 0.04 < chosen.float().mean() < 0.06
    assert torch.equal(held_out_documents(names[::-1]), chosen.flip(0))


def test_a_small_corpus_holds_out_one_document() -> None:
    assert held_out_documents(["a", "b", "c"]).sum() == 1
    assert held_out_documents(["a"]).sum() == 0


def test_display_strings_keep_spaces_and_newlines(tmp_path: Path) -> None:
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    text = "the cat\n\nsat  on ä mat"
    ids = torch.tensor(tokenizer(text)["input_ids"])
    tokens = write(tmp_path, ids=ids, offsets=torch.tensor([0, 1, len(ids)]), kind=torch.zeros(len(ids)))
    assert "".join(tokens.text_strings(tokens.ids)) == text
    assert "�" not in "".join(tokens.token_strings(tokens.ids))


def test_another_version_is_refused(tmp_path: Path) -> None:
    write(tmp_path)
    path = tmp_path / "tokens.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 2'))
    with pytest.raises(ValueError, match=r"this crossdiff reads 'crossdiff.tokens' version 1"):
        TokenSet.open(tmp_path)
    with pytest.raises(ValueError, match="has no token set"):
        TokenSet.open(tmp_path / "nowhere")
