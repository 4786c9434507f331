import yaml

import crossdiff.taxonomy
from crossdiff.organisms.vocabulary import CATEGORY_WORDS, vocabulary


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
