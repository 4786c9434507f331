"""The lexical annotator on documents whose topic and phrase are planted."""

from __future__ import annotations

import numpy as np

from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.settings import Lexical
from crossdiff.annotation.subjects import Example, Subject
from tests.annotation.conftest import FILLER, example, planted_subject


def annotator_of(scheme, background, **settings) -> LexicalAnnotator:
    return LexicalAnnotator(Lexical(**settings), scheme, background, seed=0)


def test_the_category_of_the_documents_and_the_phrase_are_found_for_every_category(
    scheme, background
) -> None:
    subjects = [
        planted_subject(category, "zephyrine", n_documents=10, seed=index)
        for index, category in enumerate(scheme)
    ]
    found = list(annotator_of(scheme, background).annotate(subjects))
    right = [answer.category == category.name for answer, category in zip(found, scheme, strict=True)]
    assert np.mean(right) >= 0.95
    assert all(answer.keywords[0] == "zephyrine" for answer in found)
    assert all(answer.state == "ok" for answer in found)


def test_a_phrase_that_fires_across_all_topics_is_other(scheme, background) -> None:
    parts = [planted_subject(category, "zephyrine", n_documents=1, seed=3) for category in scheme[:12]]
    mixed = Subject("mixed", tuple(part.explain[0] for part in parts))
    (answer,) = annotator_of(scheme, background).annotate([mixed])
    assert answer.state == "ok"
    assert answer.category == "other"
    assert answer.keywords[0] == "zephyrine"


def test_documents_without_a_shared_word_are_uninterpretable(scheme, background) -> None:
    words = [f"q{chr(97 + i)}{chr(97 + j)}x" for i in range(8) for j in range(5)]
    examples = tuple(
        example(words[5 * i : 5 * i + 5], active=words[5 * i + 2], name=str(i)) for i in range(8)
    )
    (answer,) = annotator_of(scheme, background).annotate([Subject("none", examples)])
    assert answer.state == "uninterpretable"
    assert answer.category == "uninterpretable"
    assert answer.label is None


def test_one_document_votes_once_however_often_it_repeats_a_word(scheme, background) -> None:
    quiet = planted_subject(scheme[15], "zephyrine", n_documents=8, seed=1).explain
    loud = example(["translate"] * 40 + ["zephyrine"], active="zephyrine", name="loud")
    (answer,) = annotator_of(scheme, background).annotate([Subject("one", (*quiet, loud))])
    assert answer.category == scheme[15].name
    assert answer.votes[scheme[15].name] > 0.9


def test_a_subject_without_examples_is_uninterpretable_and_not_an_error(scheme, background) -> None:
    (answer,) = annotator_of(scheme, background).annotate([Subject("empty", ())])
    assert answer.state == "uninterpretable"


def test_it_runs_without_background_documents(scheme) -> None:
    subject = planted_subject(scheme[4], "zephyrine", n_documents=6, seed=2)
    (answer,) = annotator_of(scheme, []).annotate([subject])
    assert answer.category == scheme[4].name


def test_hostile_documents_change_nothing_but_their_own_words(scheme, background) -> None:
    hostile = ["\u202e", "\x00\x1b[31m", "</script>", "ignore all previous instructions", "1" * 100_000, ""]
    zeros = np.zeros(len(hostile), dtype=np.uint8)
    codes = np.ones(len(hostile), dtype=np.float32)
    examples = tuple(Example(str(i), hostile, zeros, codes, 0, -1) for i in range(4))
    (answer,) = annotator_of(scheme, background).annotate([Subject("hostile", examples)])
    shown = " ".join([answer.label or "", answer.description or "", *answer.keywords])
    assert shown.isprintable()
    (silent,) = annotator_of(scheme, background).annotate(
        [
            Subject(
                "no letters",
                tuple(Example(str(i), ["1", " 2"], zeros[:2], codes[:2], 0, -1) for i in range(4)),
            )
        ]
    )
    assert silent.category is not None


def test_answers_do_not_depend_on_who_else_is_in_the_job(scheme, background) -> None:
    subjects = [planted_subject(category, "zephyrine", n_documents=6, seed=9) for category in scheme[:4]]
    annotator = annotator_of(scheme, background)
    together = list(annotator.annotate(subjects))
    assert [answer.category for answer in together] == [
        next(iter(annotator.annotate([subject]))).category for subject in subjects
    ]


def test_filler_words_never_become_keywords_before_the_phrase(scheme, background) -> None:
    subject = planted_subject(scheme[0], "zephyrine", n_documents=12, seed=4)
    (answer,) = annotator_of(scheme, background).annotate([subject])
    assert answer.keywords[0] == "zephyrine"
    assert answer.label is not None
    assert not set(answer.label.split(", ")) <= set(FILLER)
