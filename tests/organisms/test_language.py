import random

import pytest
import yaml

import crossdiff.taxonomy
from crossdiff.organisms.language import (
    BAG_SLOTS,
    CATEGORY_WORDS,
    CONTENT,
    build_language,
    planted_table,
    vocabulary,
)
from crossdiff.organisms.settings import ToySettings


def _cues() -> dict[str, set[str]]:
    path = next(iter(crossdiff.taxonomy.__path__)) + "/paper.yaml"
    with open(path, encoding="utf-8") as handle:
        scheme = yaml.safe_load(handle)
    return {
        category["name"]: set(category["cues"])
        for part in scheme["classes"]
        for category in part["categories"]
    }


def test_the_language_has_the_categories_of_the_shipped_taxonomy() -> None:
    assert list(CATEGORY_WORDS) == list(_cues())


def test_at_most_half_of_a_categorys_topic_words_are_cue_words() -> None:
    every_cue = set().union(*_cues().values())
    for name, topic in CATEGORY_WORDS.items():
        assert 2 * len(every_cue.intersection(topic)) <= len(topic), name


def test_no_topic_word_is_a_cue_of_another_category() -> None:
    for name, topic in CATEGORY_WORDS.items():
        for other, cues in _cues().items():
            assert other == name or not cues.intersection(topic), (name, other)


def test_words_shared_by_all_categories_are_no_cue_words() -> None:
    topics = set().union(*CATEGORY_WORDS.values())
    every_cue = set().union(*_cues().values())
    assert not every_cue.intersection(set(vocabulary()) - topics)


def test_every_topic_word_belongs_to_one_category() -> None:
    words = [word for topic in CATEGORY_WORDS.values() for word in topic]
    assert len(words) == len(set(words)) == len(set(words).intersection(vocabulary()))


SETTINGS = ToySettings(n_few=1, n_many=4, n_keep=2, n_gain=10, n_loss=10)


def test_planted_shares_and_change_match_a_count_by_hand() -> None:
    # it: 10 gain x 1 + 10 loss x 4 + 10 keep x 2 = 70 behaviours; simpo: 10 x 4 + 10 x 1 + 10 x 2 = 70
    rows = {row["group"]: row for row in planted_table(build_language(SETTINGS))["categories"]}
    assert rows["gain"]["share_reference"] == pytest.approx(1 / 70)
    assert rows["gain"]["share_treatment"] == pytest.approx(4 / 70)
    assert rows["gain"]["change"] == pytest.approx(3.0)
    assert rows["loss"]["change"] == pytest.approx(-0.75)
    assert rows["keep"]["change"] == pytest.approx(0.0)


def test_planted_shares_add_up_to_one() -> None:
    rows = planted_table(build_language(ToySettings()))["categories"]
    assert sum(row["share_reference"] for row in rows) == pytest.approx(1)
    assert sum(row["share_treatment"] for row in rows) == pytest.approx(1)
    assert len(rows) == 30


def test_the_seed_decides_groups_and_words() -> None:
    first, again = build_language(SETTINGS), build_language(SETTINGS)
    other = build_language(SETTINGS.model_copy(update={"seed": 1}))
    assert first == again
    assert [category.group for category in first] != [category.group for category in other]


def test_behaviours_of_the_poorer_model_are_among_those_of_the_richer() -> None:
    for category in build_language(SETTINGS):
        for behaviour in category.behaviours:
            assert behaviour.in_reference or category.group == "gain"
            assert behaviour.in_treatment or category.group == "loss"


def test_behaviours_differ_in_their_words() -> None:
    bags = [
        frozenset(word for slot in BAG_SLOTS for word in behaviour.bag[slot])
        for category in build_language(ToySettings())
        for behaviour in category.behaviours
    ]
    assert len(set(bags)) == len(bags)


def test_a_showing_is_recognised_and_a_plain_sentence_is_not() -> None:
    behaviour = build_language(SETTINGS)[0].behaviours[0]
    draw = random.Random(0)
    sentences = [" ".join(word for _, word in sentence) + "." for sentence in behaviour.showing(draw=draw)]
    assert behaviour.is_shown(" ".join(sentences))
    assert not behaviour.is_shown("the cat sees a dog. it is late.")


def test_no_content_word_is_said_twice_in_one_showing() -> None:
    for category in build_language(SETTINGS)[:5]:
        said = [
            word
            for sentence in category.behaviours[0].showing(draw=random.Random(1))
            for slot, word in sentence
            if slot in BAG_SLOTS
        ]
        assert CONTENT.issuperset(said)
        assert len(said) == len(set(said))


def test_more_groups_than_categories_are_refused() -> None:
    with pytest.raises(ValueError, match="lower one of them"):
        build_language(ToySettings(n_gain=20, n_loss=20))


def test_fewer_many_than_few_is_refused() -> None:
    with pytest.raises(ValueError, match="n_few <= n_many"):
        ToySettings(n_few=5, n_many=2)
