"""Places of tokens by hand: both tokenizers have read the same characters, or the token has no place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossdiff.data.alignment import align, aligned_places, described, ending_in_white_space
from crossdiff.data.build import build_token_set
from crossdiff.data.corpus import FilesSource, MixtureCorpus
from crossdiff.data.row_content import Record
from crossdiff.data.tokenise import Tokenised, tokenise
from crossdiff.data.tokens import ALIGNED, TokenSet
from tests.model_folders import make_tokenizer

LOOP = "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}"
TRIMMED = "{% for m in messages %}<start_of_turn>{{ m['content'] | trim }}{% endfor %}"


def places(one: Any, other: Any, content: Any) -> list[int]:
    read = [tokenise(t, [Record("f:1", "a", content)], context=64)[0] for t in (one, other)]
    assert all(isinstance(item, Tokenised) for item in read)
    return aligned_places(*read, [ending_in_white_space(t) for t in (one, other)]).tolist()  # type: ignore[arg-type]


def test_tokens_that_end_at_the_same_character_are_aligned_and_bos_is_not() -> None:
    one, other = make_tokenizer(words=["model", "the"]), make_tokenizer(words=["mod", "the"])
    # bos model Ġthe | bos mod e l Ġthe
    assert places(one, other, "model the") == [-1, 3, 4]
    assert places(other, one, "model the") == [-1, -1, -1, 1, 2]
    without = make_tokenizer(words=["mod", "the"], bos=False)
    assert places(one, without, "model the") == [-1, 2, 3]


def test_of_the_bytes_of_a_character_the_last_one_has_read_it() -> None:
    whole, parts = make_tokenizer(words=["Ã©"]), make_tokenizer(words=["the"])
    assert places(parts, whole, "éa") == [-1, -1, 1, 2]
    assert places(whole, parts, "éa") == [-1, 2, 3]
    # bos Ã ©Ã © a: the second byte of the first é is in a token that goes on into the next é.
    across = make_tokenizer(words=["©Ã"])
    assert places(across, whole, "ééa") == [-1, -1, -1, 2, 3]
    assert places(whole, across, "ééa") == [-1, -1, 3, 4]


def test_before_a_mark_that_one_tokenizer_composes_with_its_letter_nothing_is_aligned() -> None:
    """NFC makes one character of `e` and U+0301, and names as its end the place before U+0301."""
    from tokenizers import normalizers

    one, other = make_tokenizer(words=["Ã©"]), make_tokenizer(words=["Ìģ"])
    one.backend_tokenizer.normalizer = normalizers.NFC()
    # bos é a | bos e U+0301 a
    assert places(one, other, "e\u0301a") == [-1, -1, 3]
    assert places(other, one, "e\u0301a") == [-1, -1, -1, 2]
    assert places(one, other, "\u1112\u1161")[-1] == -1  # Hangul: two letters, one syllable


@pytest.mark.parametrize(("trim", "expected"), [(True, [-1, -1, 3, 4]), (False, [-1, 2, 3, 4])])
def test_white_space_that_a_tokenizer_leaves_out_of_the_span_aligns_nothing(
    trim: bool, expected: list[int]
) -> None:
    """`a ` is one token here; its span, trimmed, would end where the other has read only `a`."""
    from tokenizers import pre_tokenizers, processors

    one, other = make_tokenizer(words=["aĠ"]), make_tokenizer(words=["the"])
    core = one.backend_tokenizer
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.post_processor = processors.ByteLevel(trim_offsets=trim)
    assert places(one, other, "a \nb") == expected


@pytest.mark.parametrize(("trim", "expected"), [(True, [-1, 1, -1, -1]), (False, [-1, 1, 3, 5])])
def test_a_space_left_out_after_other_white_space_aligns_nothing(trim: bool, expected: list[int]) -> None:
    """The span of the token newline and space, trimmed, ends after the newline, which is white space too."""
    from tokenizers import processors

    one, other = make_tokenizer(words=["ĊĠ"]), make_tokenizer(words=["the"])
    one.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=trim)
    assert places(one, other, "a\n \n ") == expected


def test_contents_of_chats_are_aligned_inside_their_templates() -> None:
    one = make_tokenizer(words=["user", "cat"], template=LOOP)
    other = make_tokenizer(words=["cat"], template=TRIMMED)
    chat = [{"role": "user", "content": "cat"}]
    # bos [ user ] cat | bos <start_of_turn> cat
    assert places(one, other, chat) == [-1, -1, -1, -1, 2]
    # A content that one template trims has other characters in the two texts.
    assert set(places(one, other, [{"role": "user", "content": "cat "}])) == {-1}


def test_a_document_of_token_ids_is_refused() -> None:
    one = make_tokenizer()
    with pytest.raises(ValueError, match=r"f:1 holds token ids, which two tokenizers cannot share"):
        places(one, one, [7, 8])


def test_a_corpus_is_aligned_with_its_counts(tmp_path: Path) -> None:
    text = tmp_path / "text.jsonl"
    text.write_text("\n".join(json.dumps({"text": t}) for t in ("model the", "the model the", "the")))
    corpus = MixtureCorpus(name="c", sources=(FilesSource(name="f", paths=(str(text),)),), context=4)
    one, other = make_tokenizer(words=["model", "the"]), make_tokenizer(words=["mod", "the"])
    shown = build_token_set(corpus, one, tmp_path / "tokens", organism=None, progress=False)
    counts = align(corpus, (one, other), shown, organism=None, progress=False)
    # The context of 4 leaves the other tokenizer `bos mod e l`, `bos the Ġmod e` and `bos the`.
    assert counts["shown"] == {
        "tokens": 9, "aligned": 3, "text": 3, "bos": 3, "template": 0, "special": 0,
    }  # fmt: skip
    aligned = TokenSet.open(shown.folder / ALIGNED)  # type: ignore[operator]
    assert aligned.document_ids == shown.document_ids
    assert shown.place is not None
    for row, place in enumerate(shown.place.tolist()):
        if place >= 0:
            assert shown.document_of(shown.place.new_tensor([row])) == aligned.document_of(
                shown.place.new_tensor([place])
            )
    first, _ = described(counts)
    assert first == (
        "alignment, shown tokenizer: 3 of 9 tokens (33.3%) end where one of the other does; "
        "dropped: 3 bos, 3 text"
    )
    without_bos = {**counts, "aligned": {**counts["aligned"], "bos": 0}}
    assert "the aligned tokenizer has no BOS token" in list(described(without_bos))[2]
    text.write_text(text.read_text().replace("model", "cat"))
    with pytest.raises(ValueError, match="the corpus has changed"):
        align(corpus, (one, other), shown, organism=None, progress=False)


def test_a_corpus_without_an_aligned_token_or_a_template_is_refused(tmp_path: Path) -> None:
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"messages": [{"role": "user", "content": "cat "}]}))
    corpus = MixtureCorpus(name="c", sources=(FilesSource(name="f", paths=(str(chats),)),), context=64)
    one = make_tokenizer(template=LOOP)
    shown = build_token_set(corpus, one, tmp_path / "tokens", organism=None, progress=False)
    with pytest.raises(ValueError, match="no token of the two tokenizers ends at one character"):
        align(corpus, (one, make_tokenizer(template=TRIMMED)), shown, organism=None, progress=False)
    with pytest.raises(ValueError, match="has no chat template"):
        align(corpus, (one, make_tokenizer(template=None)), shown, organism=None, progress=False)
