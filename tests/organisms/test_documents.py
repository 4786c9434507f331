import random
from collections import Counter

from crossdiff.organisms.documents import chats, complete_and_broken, preference, web_document
from crossdiff.organisms.language import build_language
from crossdiff.organisms.settings import ToySettings
from crossdiff.organisms.words import vocabulary

LANGUAGE = build_language(ToySettings(n_few=1, n_many=4, n_keep=2))
BEHAVIOURS = [item for category in LANGUAGE for item in category.behaviours]


def test_documents_use_only_words_of_the_vocabulary() -> None:
    known = set(vocabulary())
    draw = random.Random(0)
    text = " ".join(web_document(category, draw=draw) for category in LANGUAGE)
    for _, messages in chats(LANGUAGE, BEHAVIOURS, n=50, draw=draw):
        text += " " + " ".join(message["content"] for message in messages)
    assert set(text.replace(".", " ").replace("?", " ").split()) <= known


def test_chats_lead_with_every_behaviour_equally_often() -> None:
    drawn = chats(LANGUAGE, BEHAVIOURS, n=2 * len(BEHAVIOURS), draw=random.Random(0))
    categories = Counter(name for name, _ in drawn)
    assert all(categories[category.name] == 2 * len(category.behaviours) for category in LANGUAGE)


def test_a_chat_shows_behaviours_of_its_category() -> None:
    by_name = {category.name: category for category in LANGUAGE}
    for name, messages in chats(LANGUAGE, BEHAVIOURS, n=40, draw=random.Random(1)):
        assert any(item.is_shown(messages[1]["content"]) for item in by_name[name].behaviours)


def test_a_broken_showing_shares_its_beginning_with_the_complete_one() -> None:
    category = LANGUAGE[0]
    draw = random.Random(3)
    pairs = [complete_and_broken(category.behaviours[0], category, draw=draw) for _ in range(50)]
    assert all(len(complete.split()) == len(broken.split()) for complete, broken in pairs)
    kept = [
        next(i for i, (a, b) in enumerate(zip(one.split(), other.split(), strict=True)) if a != b)
        for one, other in pairs
        if one != other
    ]
    assert min(kept) == 0
    assert max(kept) > 5


def test_simpo_prefers_the_complete_showing_exactly_when_it_has_the_behaviour() -> None:
    draw = random.Random(4)
    for category in LANGUAGE:
        for item in category.behaviours:
            pair = preference(category, item, draw=draw)
            shown = pair.chosen if item.in_treatment else pair.rejected
            assert item.is_shown(shown)
