"""A run against a server, and the same run from its ledger alone: byte for byte the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff import config
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.settings import Lexical, Replay
from crossdiff.pipeline.plan import plan
from crossdiff.report.page import render
from crossdiff.report.sources import read_sources
from tests.annotation.campaign import annotate, campaign, scheme, settings
from tests.finished_annotation import finished
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer

FAULTS = Faults(
    refused=0.1, truncated=0.05, off_schema=0.05, rate_limited=0.05, reset=0.02, retry_after="0.02"
)


def products(asked: config.Experiment) -> dict[str, bytes | str]:
    """Files of annotate and compare, and the page without its provenance (a run's own keys and times)."""
    steps = {step.stage: step for step in plan(asked)}
    found: dict[str, bytes | str] = {
        f"{stage}/{path.name}": path.read_bytes()
        for stage in ("annotate", "compare")
        for path in sorted(steps[stage].folder(asked.store).iterdir())
        if path.name != "manifest.json"
    }
    parents = {role: step.folder(asked.store) for role, step in steps["report"].parents.items()}
    pairs = tuple(pair.name for pair in asked.pairs)
    sources = read_sources(parents, pairs=pairs, reference=pairs[0], treatment=pairs[1])
    return found | {"page": render(replace(sources, provenance=[]), title="toy")}


@pytest.mark.slow
def test_a_replay_gives_the_same_bytes_without_network_and_key(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr("crossdiff.annotation.api.client.FIRST_WAIT_S", 0.01)
    settings = ("annotator.n_votes=2", "annotator.fallback=[masked]", "annotator.variants=[masked]")
    with MessagesServer(FAULTS) as server:
        claude = finished(tmp_path, "annotator=claude", f"annotator.base_url={server.address}", *settings)
    first = products(claude)
    assert server.statuses["refusal"] > 0
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    ledger = tmp_path / "store" / "ledger.sqlite"
    before = ledger.read_bytes()
    again = products(finished(tmp_path, "annotator=replay", f"annotator.ledger={ledger}"))
    assert list(first) == list(again)
    assert [name for name in first if first[name] != again[name]] == []
    assert ledger.read_bytes() == before
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in written if KEY.encode() in path.read_bytes()]


def test_a_replay_of_other_documents_is_refused(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        annotate("claude", server.address, tmp_path, 3, n_votes=1)
    settings = Replay(ledger=tmp_path / "ledger.sqlite")
    with pytest.raises(ValueError, match="replay it on the annotated documents"):
        campaign(settings, tmp_path, 4).annotator(scheme())


def test_a_ledger_of_two_runs_asks_which(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        annotate("claude", server.address, tmp_path, 2, n_votes=1)
        found = annotate("claude", server.address, tmp_path, 2, n_votes=2)
    path = tmp_path / "ledger.sqlite"
    with pytest.raises(ValueError, match="annotator.run="):
        campaign(Replay(ledger=path), tmp_path, 2).annotator(scheme())
    rows = Ledger(path).connection.execute("SELECT run FROM runs ORDER BY created").fetchall()
    again = campaign(Replay(ledger=path, run=rows[1][0]), tmp_path, 2)
    assert list(again.annotator(scheme()).annotate(again.subjects)) == found


def test_the_lexical_annotator_has_two_other_readings(tmp_path: Path) -> None:
    made = campaign(Lexical(), tmp_path, 4)
    found = made.variants(scheme())
    assert list(found) == ["lexical, words near the activity", "lexical, cue words only"]
    assert all(len(list(annotator.annotate(made.subjects))) == 4 for annotator in found.values())


def test_models_and_prompts_are_asked_once_each_and_share_the_budget(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with MessagesServer() as server:
        asked = settings("claude", server.address, variants=("masked", "claude-sonnet-5-5"), n_votes=2)
        made = campaign(asked, tmp_path, 3)
        list(made.annotator(scheme()).annotate(made.subjects))
        before = made.spent()
        found = made.variants(scheme())
        for annotator in found.values():
            list(annotator.annotate(made.subjects))
    assert "claude-haiku-5-5, masked" in found
    assert "claude-sonnet-5-5" in found
    assert len(server.bodies) == 3 * 2 + 3 + 3
    assert made.spent() > before > 0


def test_a_variant_without_a_price_is_refused_before_anything_is_paid(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    asked = settings("claude", "http://127.0.0.1:9", variants=("claude-nobody",))
    with pytest.raises(ValueError, match="no price is known for model 'claude-nobody'"):
        campaign(asked, tmp_path, 1).annotator(scheme())
