"""Corpus: compositions are typed copies of the corpus, fates are counted."""

import pytest

from crossdiff.data.corpus import MixtureCorpus, OrganismSource
from crossdiff.studies.corpus import Composition, Corpus

MIXED = MixtureCorpus(
    name="toy",
    sources=(OrganismSource(name="web", file="web.jsonl"), OrganismSource(name="chat", file="chat.jsonl")),
)
KNOWN = {source.name: source for source in MIXED.sources}


def test_unnamed_sources_are_left_out() -> None:
    found = Composition(name="chat_only", weights={"chat": 2.0}).corpus(KNOWN, MIXED)
    assert [(source.name, source.weight) for source in found.sources] == [("chat", 2.0)]
    assert found.name == "toy_chat_only"


def test_an_unknown_source_names_those_there_are() -> None:
    with pytest.raises(ValueError, match=r"'wiki'.*web, chat"):
        Composition(name="x", weights={"wiki": 1.0}).corpus(KNOWN, MIXED)


def test_fates_are_counted(make_run) -> None:
    first = make_run("mixed", {"mathematics": 30, "role_play": 2}, {})
    other = make_run("chat_only", {"storytelling": 30, "role_play": 2}, {})
    compositions = tuple(Composition(name=n, weights={"web": 1.0}) for n in ("mixed", "chat_only"))
    found = Corpus(compositions=compositions).analyse({"mixed": first, "chat_only": other}, {})
    assert "on chat_only 1 categories appear and 1 vanish (2 change beyond chance)" in found.answer


def test_nothing_appears_against_a_corpus_without_labels(make_run) -> None:
    first = make_run("mixed", {}, {})
    other = make_run("chat_only", {"storytelling": 30, "role_play": 2}, {})
    compositions = tuple(Composition(name=n, weights={"web": 1.0}) for n in ("mixed", "chat_only"))
    found = Corpus(compositions=compositions).analyse({"mixed": first, "chat_only": other}, {})
    assert "on chat_only nothing can be said (mixed has no labelled exclusive latent)" in found.answer
    table = found.charts[1].table
    assert table is not None
    assert {row.cells[4].text for row in table.rows} == {"unknown"}
    swapped = Corpus(compositions=compositions).analyse({"chat_only": other, "mixed": first}, {})
    assert "on mixed nothing can be said (mixed has no labelled" in swapped.answer
