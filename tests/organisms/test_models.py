import random
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from crossdiff.organisms.documents import show
from crossdiff.organisms.language import build_language, vocabulary
from crossdiff.organisms.models import build_tokenizer, shown_share
from crossdiff.organisms.settings import ToySettings

MESSAGES = [
    {"role": "user", "content": "tell me about the dragon?"},
    {"role": "assistant", "content": "the dragon lifts a sword."},
]
GEMMA = (
    "<bos><start_of_turn>user\ntell me about the dragon?<end_of_turn>\n"
    "<start_of_turn>model\nthe dragon lifts a sword.<end_of_turn>\n"
)


def test_chats_are_written_in_gemmas_format() -> None:
    tokenizer = build_tokenizer(vocabulary())
    assert tokenizer.apply_chat_template(MESSAGES, tokenize=False) == GEMMA
    opened = tokenizer.apply_chat_template(MESSAGES[:1], tokenize=False, add_generation_prompt=True)
    assert opened == GEMMA[: GEMMA.index("the dragon lifts")]


def test_every_word_and_every_control_token_is_one_token() -> None:
    tokenizer = build_tokenizer(vocabulary())
    ids = tokenizer(GEMMA, add_special_tokens=False)["input_ids"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    assert tokens[:5] == ["<bos>", "<start_of_turn>", "▁user", "\n", "▁tell"]
    assert tokens[-4:] == ["▁sword", ".", "<end_of_turn>", "\n"]
    assert tokenizer.unk_token_id not in ids


def test_plain_text_begins_with_bos() -> None:
    tokenizer = build_tokenizer(vocabulary())
    assert tokenizer("the dragon.")["input_ids"][0] == tokenizer.bos_token_id


def test_a_saved_tokenizer_is_loaded_by_the_ordinary_class(tmp_path: Path) -> None:
    tokenizer = build_tokenizer(vocabulary())
    tokenizer.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert loaded.apply_chat_template(MESSAGES, tokenize=False) == GEMMA
    assert (
        loaded(GEMMA, add_special_tokens=False)["input_ids"]
        == tokenizer(GEMMA, add_special_tokens=False)["input_ids"]
    )


def test_the_rate_is_the_share_of_answers_with_a_showing() -> None:
    category = build_language(ToySettings())[0]
    behaviour, other = category.behaviours[:2]
    draw = random.Random(0)
    answers = [show(behaviour, draw=draw), show(other, draw=draw), "the garden.", show(behaviour, draw=draw)]
    assert shown_share(answers, behaviour) == pytest.approx(0.5)
    assert shown_share(answers, other) == pytest.approx(0.25)
