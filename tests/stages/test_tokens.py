"""Tokens stage: ids, kinds, counts, and every way a corpus can be bad."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossdiff.data.corpus import FilesCorpus, fingerprint
from crossdiff.data.tokens import TokenKind, TokenSet
from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Runtime
from crossdiff.stages import tokens
from tests.model_folders import make_tokenizer


def build(tmp_path: Path, *paths: Path | str, tokenizer: Any = None, **corpus: Any) -> TokenSet:
    (tokenizer or make_tokenizer()).save_pretrained(tmp_path / "model")
    settings = FilesCorpus(paths=tuple(str(path) for path in paths), **corpus)
    inputs = tokens.TokensInputs(
        corpus=settings,
        corpus_fingerprint=fingerprint(settings),
        tokenizer=ModelSettings(name="tuned", path=str(tmp_path / "model")),
        tokenizer_fingerprint="folder:x",
    )
    draft = tmp_path / "tokens"
    draft.mkdir(exist_ok=True)
    tokens.run(inputs, {}, draft, Runtime(progress=False))
    return TokenSet.open(draft)


def jsonl(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


CHAT = [{"role": "user", "content": " user user \n"}, {"role": "assistant", "content": "hello model"}]


def test_template_tokens_lie_outside_the_contents_even_when_these_repeat_role_words(tmp_path: Path) -> None:
    made = build(tmp_path, jsonl(tmp_path / "c.jsonl", {"id": "x", "messages": CHAT}))
    strings = made.token_strings(made.ids)
    kinds = [TokenKind(k) for k in made.kind.tolist()]
    assert "".join(strings) == (
        "<bos><start_of_turn>user\nuser user<end_of_turn>\n<start_of_turn>model\nhello model<end_of_turn>\n"
    )
    text = [s for s, k in zip(strings, kinds, strict=True) if k == TokenKind.TEXT]
    assert text == ["user", " user", "hello", " model"]
    assert kinds[0] == TokenKind.BOS
    assert set(kinds) == {TokenKind.BOS, TokenKind.TEMPLATE, TokenKind.TEXT}


def test_every_document_opens_with_bos_where_the_tokenizer_has_one(tmp_path: Path) -> None:
    made = build(tmp_path, jsonl(tmp_path / "c.jsonl", {"text": "the cat"}, {"text": "a dog"}))
    assert made.kind[made.offsets[:-1]].tolist() == [TokenKind.BOS] * 2
    assert made.details["tokens_per_kind"]["bos"] == 2


def test_a_tokenizer_without_bos_adds_none_and_says_so(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", {"text": "the cat"})
    made = build(tmp_path, path, tokenizer=make_tokenizer(bos=False))
    assert made.kind.tolist() == [TokenKind.TEXT] * 2
    assert "no BOS token" in made.details["notices"][0]


def test_special_tokens_inside_a_text_are_known_by_kind(tmp_path: Path) -> None:
    made = build(tmp_path, jsonl(tmp_path / "c.jsonl", {"text": "the<eos> cat"}))
    assert made.kind.tolist() == [TokenKind.BOS, TokenKind.TEXT, TokenKind.SPECIAL, TokenKind.TEXT]


def test_duplicates_are_dropped_long_documents_cut_and_both_counted(tmp_path: Path) -> None:
    rows = [
        {"id": "a", "text": "the cat"},
        {"id": "b", "text": "the cat"},
        {"id": "c", "text": "a dog " * 50},
    ]
    made = build(tmp_path, jsonl(tmp_path / "c.jsonl", *rows), context=16)
    counts = made.details["sources"]["files"]
    assert made.document_ids == ["a", "c"]
    assert (counts["duplicates"], counts["cut"], counts["documents"]) == (1, 1, 2)
    assert made.offsets.diff().tolist() == [3, 16]
    assert counts["tokens_cut"] == len(make_tokenizer()("a dog " * 50)["input_ids"]) + 1 - 16


def test_repeated_ids_are_made_unique(tmp_path: Path) -> None:
    rows = [{"id": "a", "text": "the cat"}, {"id": "a", "text": "a dog"}, {"id": "a~2", "text": "mat"}]
    made = build(tmp_path, jsonl(tmp_path / "c.jsonl", *rows))
    assert made.document_ids == ["a", "a~3", "a~2"]


def test_text_files_folders_and_parquet_are_read(tmp_path: Path) -> None:
    import pandas as pd

    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("the cat\n\nsat on\na mat")
    pd.DataFrame({"id": [7], "messages": [CHAT]}).to_parquet(folder / "b.parquet")
    made = build(tmp_path, folder)
    assert made.document_ids == ["a.txt:1", "7"]
    assert (made.kind == TokenKind.TEMPLATE).any()


@pytest.mark.parametrize(("unit", "n"), [("file", 1), ("paragraph", 2), ("line", 3)])
def test_a_txt_file_is_one_document_or_one_per_paragraph_or_line(tmp_path: Path, unit: str, n: int) -> None:
    (tmp_path / "a.txt").write_text("the cat\n\nsat on\na mat")
    assert build(tmp_path, tmp_path / "a.txt", txt=unit).n_documents == n


def test_pre_tokenised_documents_keep_their_ids(tmp_path: Path) -> None:
    ids = make_tokenizer()("the cat sat")["input_ids"]
    made = build(tmp_path, jsonl(tmp_path / "c.jsonl", {"input_ids": ids}))
    assert made.ids.tolist()[1:] == ids


def test_n_tokens_stops_after_the_document_that_reaches_it(tmp_path: Path) -> None:
    made = build(
        tmp_path, jsonl(tmp_path / "c.jsonl", *[{"text": f"the cat {i}"} for i in range(30)]), n_tokens=20
    )
    assert 20 <= made.n_tokens <= 25


def bad_json(path: Path) -> Path:
    path.write_text('{"text": "the cat"}\n{"text": \n{"text": "a dog"}\n')
    return path


def test_a_broken_line_is_named_by_file_and_number(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c.jsonl:2 is not JSON .*corpus.skip_bad=true"):
        build(tmp_path, bad_json(tmp_path / "c.jsonl"))


HOSTILE = {
    "not UTF-8": b'{"text": "\xff"}',
    "Python refuses": b'{"input_ids": [' + b"9" * 5000 + b"]}",
    "Python refuses (maximum recursion": b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "half of a surrogate pair": rb'{"text": "a cut emoji \ud83d"}',
    "which is no Unicode text": rb'{"messages": [{"role": "user", "content": "\ud83d"}]}',
    "no Unicode": rb'{"id": "\udc00", "text": "a dog"}',
    "token id -1": b'{"input_ids": [5, -1]}',
    "neither text, messages": b'{"messages": []}',
    "a document is an object": b"[1, 2]",
}


@pytest.mark.parametrize("reason", HOSTILE)
def test_hostile_lines_are_named_and_can_be_skipped(tmp_path: Path, reason: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_bytes(b'{"text": "the cat"}\n' + HOSTILE[reason] + b"\n")
    with pytest.raises(ValueError, match=r"c.jsonl:2 .*") as caught:
        build(tmp_path, path)
    assert reason in str(caught.value)
    assert build(tmp_path, path, skip_bad=True).details["sources"]["files"]["bad"] == 1


def test_a_parquet_file_with_a_damaged_page_is_named_with_the_row(tmp_path: Path) -> None:
    import pandas as pd

    path = tmp_path / "c.parquet"
    pd.DataFrame({"text": [f"the cat {n} " * 50 for n in range(5000)]}).to_parquet(path, row_group_size=500)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(byte ^ 0x55 for byte in content[middle : middle + 200])
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=r"c.parquet is no readable parquet file from row 2048 on .*skip_bad"
    ):
        build(tmp_path, path)


def test_skip_bad_counts_and_reports_broken_lines(tmp_path: Path) -> None:
    made = build(tmp_path, bad_json(tmp_path / "c.jsonl"), skip_bad=True)
    assert made.n_documents == 2
    assert made.details["sources"]["files"]["bad"] == 1
    assert "c.jsonl:2" in made.details["notices"][0]


def test_a_line_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_bytes(b"the cat\nb\xff\n")
    with pytest.raises(ValueError, match=r"c.txt:2 is not UTF-8"):
        build(tmp_path, tmp_path / "c.txt")


def test_a_chat_that_the_template_refuses_is_named(tmp_path: Path) -> None:
    rows = [{"messages": [{"role": "system", "content": "x"}, *CHAT]}, {"messages": CHAT}]
    path = jsonl(tmp_path / "c.jsonl", *rows)
    with pytest.raises(ValueError, match=r"c.jsonl:1: the chat template refuses .*System role not supported"):
        build(tmp_path, path)
    assert build(tmp_path, path, skip_bad=True).n_documents == 1


def test_chats_without_a_template_are_refused(tmp_path: Path) -> None:
    path = jsonl(tmp_path / "c.jsonl", {"messages": CHAT})
    with pytest.raises(ValueError, match="no chat template; use the tokenizer of a model that has one"):
        build(tmp_path, path, tokenizer=make_tokenizer(template=None))


def test_a_row_without_text_names_its_keys(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"c.jsonl:1 has keys \['body'\] but none of text, messages"):
        build(tmp_path, jsonl(tmp_path / "c.jsonl", {"body": "x"}))


@pytest.mark.parametrize("content", ["", "\n\n", '{"text": ""}\n{"text": ""}\n'])
def test_a_corpus_without_a_usable_token_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "c.jsonl").write_text(content)
    with pytest.raises(ValueError, match="no usable token .*give at least one document with text"):
        build(tmp_path, tmp_path / "c.jsonl")


def test_missing_and_foreign_files_and_empty_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nowhere.jsonl does not exist"):
        build(tmp_path, tmp_path / "nowhere.jsonl")
    (tmp_path / "a.csv").write_text("x")
    with pytest.raises(ValueError, match=r"is '.csv'; crossdiff reads .txt, .jsonl, .json, .parquet"):
        build(tmp_path, tmp_path / "a.csv")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no .txt, .jsonl, .json, .parquet file"):
        build(tmp_path, tmp_path / "empty")
