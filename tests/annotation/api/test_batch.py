"""Message Batches through the real SDK: half the price, and never two paid batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.annotation.api import batch
from crossdiff.annotation.api.requests import Request
from tests.annotation.api.accounts import contents, ledger_of, server_bill
from tests.annotation.campaign import annotate, lines
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr("crossdiff.annotation.api.client.FIRST_WAIT_S", 0.01)


def test_all_votes_go_as_one_batch_at_half_price(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("claude_batch", server.address, tmp_path, 5)
    assert [len(made.requests) for made in server.batches.values()] == [15]
    assert all(annotation.state == "ok" for annotation in found)
    assert ledger_of(tmp_path).spent() == pytest.approx(server_bill(server, factor=0.5))


def test_a_batch_and_live_calls_say_the_same(tmp_path: Path) -> None:
    with MessagesServer() as server:
        first = annotate("claude_batch", server.address, tmp_path / "batch", 4)
        second = annotate("claude", server.address, tmp_path / "live", 4)
    assert lines(first) == lines(second)


def test_a_lost_answer_to_create_is_adopted_and_not_sent_again(tmp_path: Path) -> None:
    with MessagesServer(Faults(lost_creates=1)) as server:
        found = annotate("claude_batch", server.address, tmp_path, 4)
    assert len(server.batches) == 1
    assert server.calls["POST /v1/messages/batches"] == 1
    assert all(annotation.state == "ok" for annotation in found)
    check_accounts_of(tmp_path, server)


@pytest.mark.parametrize("faults", [Faults(cut_results=1), Faults(quiet_cuts=1)], ids=["reset", "quiet"])
def test_a_cut_results_stream_is_read_again(tmp_path: Path, faults: Faults) -> None:
    with MessagesServer(faults) as server:
        found = annotate("claude_batch", server.address, tmp_path, 4)
    assert len(server.batches) == 1
    assert all(annotation.state == "ok" for annotation in found)
    check_accounts_of(tmp_path, server)


def test_a_batch_of_somebody_else_is_set_aside(tmp_path: Path) -> None:
    """Another program's batch of the same size, made at the same time, is not taken for the lost one."""
    with MessagesServer() as server:
        annotate("claude_batch", server.address, tmp_path / "other", 2, n_votes=1)
        found = annotate("claude_batch", server.address, tmp_path / "own", 2, n_votes=1, max_tokens=900)
    assert len(server.batches) == 2
    assert all(annotation.state == "ok" for annotation in found)
    states = ledger_of(tmp_path / "own").connection.execute("SELECT state FROM batches").fetchall()
    assert sorted(states) == [("collected",), ("foreign",)]


def test_after_a_kill_while_waiting_the_same_batch_is_read(tmp_path: Path, monkeypatch) -> None:
    class Killed(Exception):
        pass

    async def die(self, submission) -> None:
        raise Killed

    with MessagesServer() as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch._Collector, "_wait", die)
            with pytest.raises(Killed):
                annotate("claude_batch", server.address, tmp_path, 4)
        found = annotate("claude_batch", server.address, tmp_path, 4)
        annotate("claude_batch", server.address, tmp_path / "plain", 4)
    assert len(server.batches) == 1  # and the other ledger adopts it: the requests are the same
    assert all(annotation.state == "ok" for annotation in found)
    assert contents(tmp_path) == contents(tmp_path / "plain")


def test_a_resumed_batch_counts_once_against_the_budget(tmp_path: Path, monkeypatch) -> None:
    """The reserve of a killed run becomes the bill: what is left is enough for the repairs."""

    async def die(self, submission) -> None:
        raise KeyboardInterrupt

    with MessagesServer(Faults(off_schema=1.0)) as server:
        with monkeypatch.context() as patch:
            patch.setattr(batch._Collector, "_wait", die)
            with pytest.raises(KeyboardInterrupt):
                annotate("claude_batch", server.address, tmp_path, 2, max_usd=0.035)
        annotate("claude_batch", server.address, tmp_path, 2, max_usd=0.035)
    assert len(server.batches) == 2
    assert ledger_of(tmp_path).spent() == pytest.approx(server_bill(server, factor=0.5))


def test_the_budget_cuts_the_batch(tmp_path: Path) -> None:
    with MessagesServer() as server:
        found = annotate("claude_batch", server.address, tmp_path, 6, max_usd=0.02)
    assert 0 < sum(len(made.requests) for made in server.batches.values()) < 18
    assert ledger_of(tmp_path).spent() <= 0.02
    assert "skipped_budget" in {annotation.state for annotation in found}


def test_parts_keep_to_the_limits_of_number_and_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_REQUESTS", 3)
    monkeypatch.setattr(batch, "MAX_BYTES", 50)
    texts = ["a" * 10] * 4 + ["b" * 40, "c" * 90]
    requests = [
        Request("p", "anthropic", "m", text, (), {}, None, 64, vote, "e") for vote, text in enumerate(texts)
    ]
    sizes = [[request.n_bytes for request in part] for part in batch._parts(requests)]
    assert sizes == [[10, 10, 10], [10, 40], [90]]


def check_accounts_of(store: Path, server: MessagesServer) -> None:
    assert ledger_of(store).spent() == pytest.approx(server_bill(server, factor=0.5))
    assert set(server.paid.values()) == {1}
    assert ledger_of(store).counts() == {"paid": sum(server.paid.values())}
