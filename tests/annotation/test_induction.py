"""Taxonomies induced from words and by a model over HTTP; both must pass the taxonomy's own checks."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from crossdiff.annotation.induction import induce_from_words
from crossdiff.annotation.results import Annotation
from crossdiff.annotation.settings import Lexical
from crossdiff.taxonomy.scheme import parse_taxonomy
from tests.annotation.api.accounts import ledger_of
from tests.annotation.campaign import campaign, settings
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer

FROZEN = {"version": 1, "name": "induced", "provenance": "test"}


def words(number: int, *keywords: str) -> Annotation:
    return Annotation(f"{number:05d}", "ok", "lexical", keywords=keywords)


def test_latents_that_share_keywords_share_a_category() -> None:
    groups = [("oven", "bread", "flour"), ("court", "judge", "law"), ("goal", "ball", "team")]
    latents = [words(index, *groups[index % 3]) for index in range(12)]
    found = parse_taxonomy({**FROZEN, **induce_from_words(latents, n_classes=2, n_categories=3)}, where="t")
    assert 1 <= len(found.classes) <= 2
    assert {category.cues for category in found.categories} == set(groups)


def test_too_few_words_are_said() -> None:
    with pytest.raises(ValueError, match="use taxonomy=paper"):
        induce_from_words([words(0, "oven")], n_classes=2, n_categories=3)


def test_the_lexical_taxonomy_keeps_to_its_sizes(tmp_path: Path) -> None:
    content = campaign(Lexical(), tmp_path, 60).induce(sizes=(3, 5, 12))
    found = parse_taxonomy({**FROZEN, **content}, where="t")
    assert len(found.classes) <= 5
    assert len(found.categories) <= 12


def test_a_model_proposes_once_per_shuffle_and_merges(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        asked = settings("claude", server.address)
        content = campaign(asked, tmp_path, 5).induce(sizes=(3, 2, 4))
    found = parse_taxonomy({**FROZEN, **content}, where="t")
    assert [group.name for group in found.classes] == ["first", "second"]
    arrived = Counter[str]()
    for key, count in server.arrived.items():
        arrived[server.bodies[key]["model"]] += count
    assert arrived == {"claude-haiku-5-5": 5, "claude-opus-5-5": 4}
    assert ledger_of(tmp_path).spent() > 0


def test_a_compatible_server_is_asked_in_its_own_terms(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("TEST_KEY", KEY)
    with MessagesServer() as server:
        asked = settings("anthropic_compatible", server.address)
        campaign(asked, tmp_path, 5).induce(sizes=(2, 2, 4))
    assert not any("output_config" in body for body in server.bodies.values())
    assert server.bodies


def test_when_no_proposal_can_be_read_the_way_out_is_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer(Faults(refused=1.0)) as server, pytest.raises(ValueError, match="use taxonomy=paper"):
        campaign(settings("claude", server.address), tmp_path, 3).induce(sizes=(2, 2, 4))
