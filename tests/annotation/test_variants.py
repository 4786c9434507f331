"""Other ways to label: free keyword readings always, other models and prompts where asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.annotation.annotators import build
from crossdiff.annotation.settings import Lexical
from crossdiff.annotation.variants import variants
from tests.annotation.campaign import job, scheme, settings
from tests.messages_server import KEY, MessagesServer


def test_the_lexical_annotator_has_two_other_readings(tmp_path: Path) -> None:
    made = job(tmp_path, 4)
    found = variants(Lexical(), scheme(), made)
    assert list(found) == ["lexical, words near the activity", "lexical, cue words only"]
    assert all(len(list(annotator.annotate(made.subjects))) == 4 for annotator in found.values())


def test_models_and_prompts_are_asked_once_each_and_share_the_budget(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        asked = settings("claude", server.address, variants=("masked", "claude-sonnet-5-5"), n_votes=2)
        made = job(tmp_path, 3)
        list(build(asked, scheme(), made).annotate(made.subjects))
        before = made.spent()
        found = variants(asked, scheme(), made)
        for annotator in found.values():
            list(annotator.annotate(made.subjects))
    assert "claude-haiku-5-5, masked" in found
    assert "claude-sonnet-5-5" in found
    assert len(server.bodies) == 3 * 2 + 3 + 3
    assert made.spent() > before > 0
    assert len(made.opened) == 1


def test_a_variant_without_a_price_is_refused_before_anything_is_paid(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    asked = settings("claude", "http://127.0.0.1:9", variants=("claude-nobody",))
    with pytest.raises(ValueError, match="no price is known for model 'claude-nobody'"):
        build(asked, scheme(), job(tmp_path, 1))
