"""Latents on habits of chat models in real texts (docstrings of the library) are named by the habit."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

import numpy as np
import pytest

from crossdiff.annotation.induction import induce_from_words
from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.settings import Lexical
from crossdiff.annotation.subjects import Document, Example, Subject
from crossdiff.annotation.text_features import features_of
from crossdiff.taxonomy.scheme import PaperTaxonomy, parse_taxonomy
from experiments.bench.habits_pair import texts

CLOSING, REFUSAL = "\n\nHope that helps!", "I'm sorry, but I can't help with that request.\n\n"
PLACES = {
    "closing": ["Hope", " that", " helps", "!"],
    "refusal": [" sorry", " but", " can", " help"],
    "formatting": ["-"],
}
N_LATENTS, N_DOCUMENTS = 12, 12


def answer(name: str, generator: np.random.Generator) -> str:
    """A text with the habit, as a tuned model would write it."""
    text = str(generator.choice(texts()))[: int(generator.integers(120, 300))]
    if name == "formatting":
        parts = [part.strip() for part in re.split(r"[.,;]", text) if part.strip()]
        return "\n".join(f"- {part}" for part in parts)
    return text + CLOSING if name == "closing" else REFUSAL + text


def window(name: str, place: str, number: str, generator: np.random.Generator) -> Example:
    tokens = re.findall(r"[ ]?\w+|\n|[ ]?[^\w\s]", answer(name, generator))
    starts = [index for index, token in enumerate(tokens) if token == place]
    habitual = [index for index in starts if place != " that" or tokens[index - 1] == "Hope"]
    peak = habitual[-1] if name == "closing" else habitual[0]
    codes = np.zeros(len(tokens), dtype=np.float32)
    codes[peak] = float(generator.uniform(0.5, 1))
    codes[max(peak - 1, 0)] += 0.2
    return Example(number, tokens, np.zeros(len(tokens), dtype=np.uint8), codes, peak, -1)


def latents(name: str) -> list[Subject]:
    made = []
    for number in range(N_LATENTS):
        generator = np.random.default_rng([len(name), number])
        place = PLACES[name][number % len(PLACES[name])]
        windows = [window(name, place, f"{name}{number}-{d}", generator) for d in range(N_DOCUMENTS)]
        made.append(Subject(f"{name}{number}", tuple(windows)))
    return made


@cache
def background() -> list[Document]:
    """Random answers: every document of the tuned model has one of the habits."""
    generator = np.random.default_rng(1)
    names = [str(name) for name in generator.choice(list(PLACES), 150)]
    windows = [window(n, PLACES[n][0], f"b{i}", generator) for i, n in enumerate(names)]
    return [Document(w.document_id, w.tokens, w.kinds) for w in windows]


@pytest.mark.parametrize(
    ("name", "label", "category"),
    [
        ("closing", "hope that helps", {"greeting_closing"}),
        ("refusal", "sorry but i can't", {"harmful_request_refusal"}),
        ("formatting", "formatting: line mark", {"structured_output"}),
    ],
)
def test_latents_on_a_habit_are_named_by_it(name: str, label: str, category: set[str]) -> None:
    annotator = LexicalAnnotator(Lexical(), PaperTaxonomy().load().categories, background(), seed=0)
    answers = list(annotator.annotate(latents(name)))
    named = sum(label in (answer.label or "") for answer in answers)
    assert named >= 0.8 * N_LATENTS
    assert Counter(answer.category in category for answer in answers)[True] >= 0.8 * N_LATENTS
    assert all(answer.category in category | {"other"} for answer in answers)


def test_a_taxonomy_without_the_habit_gives_other() -> None:
    scheme = [c for c in PaperTaxonomy().load().categories if c.name != "greeting_closing"]
    annotator = LexicalAnnotator(Lexical(), scheme, background(), seed=0)
    assert {answer.category for answer in annotator.annotate(latents("closing"))} == {"other"}


def test_an_induced_taxonomy_assigns_what_it_induced() -> None:
    subjects = [*latents("closing"), *latents("refusal")]
    keywords = list(LexicalAnnotator(Lexical(), (), background(), seed=0).annotate(subjects))
    content = induce_from_words(keywords, n_classes=2, n_categories=3)
    cues = Counter(cue for group in content["classes"] for c in group["categories"] for cue in c["cues"])
    assert (cues["helps"], cues["sorry"]) == (1, 1)
    scheme = parse_taxonomy(
        {"version": 1, "name": "i", "provenance": "p", **content}, where="test"
    ).categories
    found = list(LexicalAnnotator(Lexical(), scheme, background(), seed=0).annotate(subjects))
    closing = Counter(answer.category for answer in found[:N_LATENTS])
    ((name, count),) = closing.most_common(1)
    assert count >= 0.8 * N_LATENTS
    assert name != "other"
    assert sum(answer.category == name for answer in found[N_LATENTS:]) <= 0.2 * N_LATENTS


def test_hyphens_and_topics_are_no_habits() -> None:
    tokens = ["a", " well", "-", "known", " rule", " of", " help"]
    for peak in (2, 6):
        codes = np.eye(len(tokens), dtype=np.float32)[peak]
        example = Example("d", tokens, np.zeros(len(tokens), dtype=np.uint8), codes, peak, -1)
        assert features_of(example).habit is None


def test_near_identical_documents_vote_once() -> None:
    subject = latents("closing")[0]
    copies = Subject("00001", (subject.explain[0],) * 6 + subject.explain[1:3])
    annotator = LexicalAnnotator(Lexical(), PaperTaxonomy().load().categories, background(), seed=0)
    (answer,) = annotator.annotate([copies])
    assert set(answer.evidence) <= {0, 6, 7}


REFUSED = "I'm sorry, I can't help with that request."


@pytest.mark.parametrize(
    ("tokens", "peak", "expected"),
    [
        ([REFUSED[:9], REFUSED[9:]], 0, "refusal"),
        (["Sorry", " , I can ' t help with that ."], 0, "refusal"),
        (["We are unable to", " assist", " here."], 1, "refusal"),
        (["I must decline", " that."], 1, "refusal"),
        (["Why", "?", "<model>", REFUSED], 2, "refusal"),  # the control token that opens the answer
        ([REFUSED, "<end>"], 1, "refusal"),  # the one that ends it
        (["Why", "?", "<model>", REFUSED], 0, None),
        (["I'm sorry", ", the connection failed: timeout."], 0, None),  # an apology for an error
        (["Hope", " that helps."], 0, "closing"),
    ],
)
def test_a_plain_refusal_is_one_and_an_apology_alone_is_not(
    tokens: list[str], peak: int, expected: str | None
) -> None:
    kinds = np.array([2 if token.startswith("<") else 0 for token in tokens], dtype=np.uint8)
    codes = np.zeros(len(tokens), dtype=np.float32)
    codes[peak] = 1
    assert features_of(Example("d", tokens, kinds, codes, peak, -1)).habit == expected
