"""Key, model and server are checked before anything is paid; the key is in no message."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff.annotation.api import client
from crossdiff.annotation.api.secret import Secret, api_key
from tests.annotation.api.accounts import check_accounts, ledger_of, server_bill
from tests.annotation.campaign import annotate, campaign, lines, scheme, settings
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer

FAULTS = Faults(rate_limited=0.05, overloaded=0.02, reset=0.01, refused=0.02, truncated=0.01, off_schema=0.01)


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("TEST_KEY", KEY)


def test_without_a_key_the_variable_and_the_way_out_are_named(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    with pytest.raises(ValueError, match=r"ANTHROPIC_API_KEY is not set.*annotator=lexical"):
        annotate("claude", "http://127.0.0.1:9", tmp_path, 1)


def test_an_invalid_key_is_refused_and_never_shown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong-key")
    with (
        MessagesServer() as server,
        pytest.raises(ValueError, match=r"refused the key \(HTTP 401\); set ANTHROPIC_API_KEY") as caught,
    ):
        annotate("claude", server.address, tmp_path, 1)
    assert "sk-wrong" not in str(caught.value)
    assert not server.arrived


@pytest.mark.parametrize(
    ("model", "what"), [("claude-3-opus", "retired"), ("claude-9", "unknown to the API")]
)
def test_a_retired_or_unknown_model_lists_the_active_ones(tmp_path: Path, model, what) -> None:
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"as_of: 2026-01-01\nmodels:\n  {model}: {{input: 1, output: 1}}\n", encoding="utf-8")
    with (
        MessagesServer() as server,
        pytest.raises(ValueError, match=f"{what}; set annotator.model") as caught,
    ):
        annotate("claude", server.address, tmp_path, 1, model=model, prices=prices)
    assert "claude-haiku-5-5" in str(caught.value)
    assert not server.arrived


def test_a_model_without_a_price_is_refused_before_the_network(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no price is known for model 'claude-3-opus'"):
        annotate("claude", "http://127.0.0.1:9", tmp_path, 1, model="claude-3-opus")


def test_a_server_that_is_not_there_is_one_message(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.001)
    with pytest.raises(ValueError, match="did not answer 8 times"):
        annotate("claude", "http://127.0.0.1:9", tmp_path, 1)


def test_a_compatible_server_has_a_key_variable_of_its_own(monkeypatch) -> None:
    asked = settings("compatible", "http://127.0.0.1:9")
    monkeypatch.delenv("TEST_KEY")
    assert api_key(asked) == "none"
    monkeypatch.setenv("TEST_KEY", "own")
    assert api_key(asked) == "own"


def test_the_sdk_never_retries_by_itself() -> None:
    assert client.client_of(settings("claude", "http://127.0.0.1:9")).max_retries == 0
    with MessagesServer(Faults()) as server:
        made = client.client_of(settings("claude", server.address))
        asyncio.run(client.preflight(made, ["claude-haiku-5-5"], Secret(KEY)))
    assert server.calls["GET /v1/models"] == 1


def test_every_latent_gets_three_votes_in_shuffled_order(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("claude", server.address, tmp_path, 5)
    assert len(server.bodies) == 15
    assert Counter(server.arrived.values()) == {1: 15}
    assert all(annotation.state == "ok" for annotation in found)
    assert all(abs(sum(annotation.votes.values()) - 1) < 1e-9 for annotation in found)
    assert all(body["output_config"]["effort"] == "low" for body in server.bodies.values())
    assert not {"temperature", "top_p", "top_k"} & set().union(*server.bodies.values())


def test_nobody_is_asked_about_a_latent_without_examples(tmp_path: Path) -> None:
    with MessagesServer() as server:
        asked = campaign(settings("claude", server.address, scores=()), tmp_path, 3)
        first, second, third = asked.subjects
        asked = replace(asked, subjects=[first, replace(second, explain=(), score=()), third])
        found = list(asked.annotator(scheme()).annotate(asked.subjects))
    assert [annotation.state for annotation in found] == ["ok", "uninterpretable", "ok"]
    assert [annotation.key for annotation in found] == [subject.key for subject in asked.subjects]
    assert len(server.bodies) == 2 * 3


def test_a_second_run_sends_nothing_and_says_the_same(tmp_path: Path) -> None:
    with MessagesServer() as server:
        first = annotate("claude", server.address, tmp_path, 5)
        arrived = sum(server.arrived.values())
        assert lines(annotate("claude", server.address, tmp_path, 5)) == lines(first)
        assert sum(server.arrived.values()) == arrived


def test_concurrency_is_bounded(tmp_path: Path) -> None:
    with MessagesServer(latency_s=0.02) as server:
        annotate("claude", server.address, tmp_path, 8, concurrency=3)
    assert server.most_in_flight <= 3


def test_retry_after_is_obeyed_and_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossdiff.annotation.api.wire.MAX_RETRY_AFTER_S", 0.1)
    faults = Faults(rate_limited=0.5, retry_after="3600")
    with MessagesServer(faults) as server:
        started = time.monotonic()
        found = annotate("claude", server.address, tmp_path, 4)
    assert server.statuses["429"] > 0
    assert time.monotonic() - started < 10
    assert all(annotation.state == "ok" for annotation in found)


def test_a_request_that_always_fails_is_errored_and_never_a_label(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdiff.annotation.api.client.FIRST_WAIT_S", 0.001)
    with MessagesServer(Faults(overloaded=1.0)) as server:
        (found,) = annotate("claude", server.address, tmp_path, 1)
    assert (found.state, found.category, found.label) == ("errored", None, None)
    with MessagesServer() as healthy:
        (again,) = annotate("claude", healthy.address, tmp_path, 1)
    assert again.state == "ok"
    assert ledger_of(tmp_path).outcome(next(iter(server.arrived))) is None


def test_the_budget_is_a_hard_stop(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("claude", server.address, tmp_path, 10, max_usd=0.03, concurrency=2)
    spent = ledger_of(tmp_path).spent()
    assert 0 < spent <= 0.03
    states = Counter(annotation.state for annotation in found)
    assert states["skipped_budget"] > 0
    assert states["ok"] > 0
    assert sum(server.paid.values()) < 30


def test_without_budget_nothing_is_sent(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("claude", server.address, tmp_path, 3, max_usd=0.0)
    assert {annotation.state for annotation in found} == {"skipped_budget"}
    assert not server.arrived


def test_the_bill_is_that_of_the_server(tmp_path: Path) -> None:
    with MessagesServer() as server:
        annotate("claude", server.address, tmp_path, 6)
    assert ledger_of(tmp_path).spent() == pytest.approx(server_bill(server))


def test_the_estimate_is_printed_before_and_is_near_the_bill(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with MessagesServer() as server:
        annotate("claude", server.address, tmp_path, 10)
    said = capsys.readouterr().err
    assert "30 of 30 descriptions" in said
    estimate = float(said.split("about $")[1].split()[0])
    assert server.calls["POST /v1/messages/count_tokens"] == 3
    assert ledger_of(tmp_path).spent() * 0.8 < estimate < ledger_of(tmp_path).spent() * 4


def test_a_refusal_goes_down_the_chain_and_is_counted_by_who_answered(tmp_path: Path) -> None:
    faults = Faults(refused=0.4)
    chain = ("claude-sonnet-5-5", "masked", "lexical")
    with MessagesServer(faults) as server:
        found = annotate("claude", server.address, tmp_path, 20, n_votes=1, fallback=chain)
    assert {annotation.state for annotation in found} <= {"ok", "uninterpretable"}
    names = Counter(annotation.annotator for annotation in found)
    assert names["claude-haiku-5-5"] > names["claude-sonnet-5-5"] > 0
    assert any("masked" in name or "lexical" in name for name in names)
    assert server.statuses["refusal"] > 0


def test_refused_by_all_is_a_state(tmp_path: Path) -> None:
    with MessagesServer(Faults(refused=1.0)) as server:
        found = annotate("claude", server.address, tmp_path, 2, fallback=("claude-sonnet-5-5", "masked"))
    assert {annotation.state for annotation in found} == {"refused"}
    assert sum(server.arrived.values()) == 2 * 3 * 3


def test_unreadable_replies_get_one_repair_call_and_then_a_state(tmp_path: Path) -> None:
    with MessagesServer(Faults(off_schema=1.0)) as server:
        (found,) = annotate("claude", server.address, tmp_path, 1, n_votes=1)
    assert found.state == "invalid"
    assert sorted(len(body["messages"]) for body in server.bodies.values()) == [1, 3]
    with MessagesServer(Faults(truncated=1.0)) as server:
        (found,) = annotate("claude", server.address, tmp_path / "cut", 1, n_votes=1)
    assert found.state == "truncated"
    assert sorted(body["max_tokens"] for body in server.bodies.values()) == [1024, 2048]


def test_scores_are_taken_on_held_out_documents(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("claude", server.address, tmp_path, 6, scores=("detection", "fuzz", "intruder"))
    scored = [annotation for annotation in found if annotation.state == "ok"]
    assert all(set(annotation.scores) == {"detection", "fuzz", "intruder"} for annotation in scored)
    values = [value for annotation in scored for value in annotation.scores.values() if value is not None]
    assert values
    assert all(0 <= value <= 1 for value in values)
    systems = [body["system"] for body in server.bodies.values()]
    assert sum('"intruder"' in system for system in systems) == len(scored)


def test_a_compatible_server_gets_the_schema_in_the_prompt_and_costs_nothing(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("compatible", server.address, tmp_path, 3)
    assert all(annotation.state == "ok" for annotation in found)
    assert all("output_config" not in body for body in server.bodies.values())
    assert ledger_of(tmp_path).spent() == 0
    assert server.calls["GET /v1/models"] == 0


def test_under_faults_every_latent_ends_in_a_state_and_no_reply_is_paid_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdiff.annotation.api.client.FIRST_WAIT_S", 0.05)
    with MessagesServer(FAULTS) as server:
        found = annotate("claude", server.address, tmp_path, 40, fallback=("claude-sonnet-5-5", "masked"))
    assert len(found) == 40
    check_accounts(ledger_of(tmp_path), server, most_possibly_paid=server.statuses["reset"])
