"""Places that predict the first tokens of an answer."""

from __future__ import annotations

import torch

from crossdiff.data.answers import answer_places

TEXT, BOS, TEMPLATE, SPECIAL = 0, 1, 2, 3


def places(*kinds: int, first: int = 10) -> list[int]:
    return answer_places(torch.tensor(kinds, dtype=torch.uint8), first=first).tolist()


def test_the_last_message_of_a_chat_is_the_answer_and_its_places_predict_its_tokens() -> None:
    chat = (BOS, TEMPLATE, TEMPLATE, TEXT, TEXT, TEMPLATE, TEMPLATE, TEXT, SPECIAL, TEXT, TEMPLATE)
    assert places(*chat) == [6, 7, 8]  # predict tokens 7, 8, 9
    assert places(*chat, first=2) == [6, 7]


def test_text_and_chats_cut_before_the_answer_have_none() -> None:
    assert places(BOS, TEXT, TEXT, TEXT) == []
    assert places(BOS, TEMPLATE, TEXT, TEXT) == []
    assert places(TEMPLATE, TEMPLATE) == []
