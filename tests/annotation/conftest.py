"""Small planted documents: each has a topic (its cue words) and a phrase on which a latent fires."""

from __future__ import annotations

import numpy as np
import pytest

from crossdiff.annotation.subjects import Document, Example, Subject
from crossdiff.taxonomy.scheme import Category, PaperTaxonomy

FILLER = "river stone lamp window paper cloud garden bottle mirror copper silver basket".split()


def tokens_of(words: list[str]) -> list[str]:
    """Words as display strings of sub-words: long words in two pieces, a space before each word."""
    pieces: list[str] = []
    for word in words:
        pieces += [f" {word[:4]}", word[4:]] if len(word) > 5 else [f" {word}"]
    return pieces


def document(words: list[str], name: str) -> Document:
    tokens = tokens_of(words)
    return Document(name, tokens, np.zeros(len(tokens), dtype=np.uint8))


def example(words: list[str], *, active: str, name: str) -> Example:
    """A window in which every piece of the word `active` has code 1."""
    tokens = tokens_of(words)
    joined = "".join(tokens)
    ends = np.cumsum([len(token) for token in tokens])
    start = joined.index(f" {active}")
    inside = (ends > start) & (ends - [len(token) for token in tokens] < start + len(active) + 1)
    codes = inside.astype(np.float32)
    return Example(name, tokens, np.zeros(len(tokens), dtype=np.uint8), codes, int(codes.argmax()), -1)


@pytest.fixture(scope="session")
def scheme() -> tuple[Category, ...]:
    return PaperTaxonomy().load().categories


@pytest.fixture(scope="session")
def background(scheme) -> list[Document]:
    generator = np.random.default_rng(0)
    return [
        document(topical_words(category, generator), f"background-{index}-{category.name}")
        for index in range(8)
        for category in scheme
    ]


def topical_words(category: Category, generator: np.random.Generator, *, n_cues: int = 3) -> list[str]:
    words = [*generator.choice(category.cues, n_cues), *generator.choice(FILLER, 12)]
    return [str(word) for word in generator.permutation(words)]


def planted_subject(
    category: Category, phrase: str, *, n_documents: int, seed: int, n_cues: int = 3
) -> Subject:
    generator = np.random.default_rng(seed)
    examples = []
    for index in range(n_documents):
        words = topical_words(category, generator, n_cues=n_cues)
        words.insert(int(generator.integers(len(words))), phrase)
        examples.append(example(words, active=phrase, name=f"{category.name}-{index}"))
    return Subject(f"{category.name}/{phrase}", tuple(examples))
