"""Tokenizers: same ids or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.models.tokenizers import display_strings, load_tokenizer, refuse_other_tokenizer
from tests.model_folders import make_tokenizer

NAMES = {"reference_name": "tuned", "other_name": "base"}


def test_equal_tokenizers_give_no_notice() -> None:
    assert refuse_other_tokenizer(make_tokenizer(), make_tokenizer(), **NAMES) == []


def test_other_merges_are_refused_by_the_ids_they_give() -> None:
    with pytest.raises(ValueError, match=r"need one tokenizer: .* choose models of one family"):
        refuse_other_tokenizer(make_tokenizer(), make_tokenizer(words=["quick", "user"]), **NAMES)


def test_a_special_token_with_another_id_is_refused() -> None:
    left, right = make_tokenizer(), make_tokenizer()
    left.add_tokens(["<x>", "<y>"])
    right.add_tokens(["<y>", "<x>"])
    with pytest.raises(ValueError, match=r"token '<[xy]>' is id \d+ for tuned and \d+ for base"):
        refuse_other_tokenizer(left, right, **NAMES)


def test_another_template_is_a_notice() -> None:
    (notice,) = refuse_other_tokenizer(make_tokenizer(), make_tokenizer(template="x"), **NAMES)
    assert notice == "the chat template of base differs; that of tuned is used for all models"


def test_word_pieces_and_byte_pieces_keep_their_spaces() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    core = Tokenizer(models.WordLevel({"▁a": 0, "▁b": 1, "c": 2, "<unk>": 3}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    pieces = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="<unk>")
    assert display_strings(pieces, [0, 1, 2]) == {0: " a", 1: " b", 2: "c"}
    assert list(display_strings(make_tokenizer(), make_tokenizer()("a cat\n")["input_ids"]).values()) != []


def test_a_folder_without_tokenizer_says_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    with pytest.raises(ValueError, match=r"has no tokenizer; save the model's tokenizer there"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_that_lost_its_words_is_refused_and_no_folder_is_said_to_be_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of `tokenizer_config.json` alone transformers 5 makes a tokenizer that reads every text as nothing."""
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(
        ValueError, match=r"3 special tokens and no others, as where tokenizer.json is missing"
    ):
        load_tokenizer(str(tmp_path))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("no such thing")

    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", refuse)
    with pytest.raises(ValueError, match=r"no such thing; give a folder with the model"):
        load_tokenizer(str(tmp_path))
    with pytest.raises(
        ValueError, match=r"there is no folder a/b here: correct the path or the hub id, or give"
    ):
        load_tokenizer("a/b")
