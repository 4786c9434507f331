"""The ledger: replies are kept once, attempts before they are sent; kill -9 at any moment loses nothing."""

from __future__ import annotations

import json
import multiprocessing
import os
import sys
import time
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossdiff.annotation.api.ledger import Ledger, content_hash
from crossdiff.annotation.api.requests import Request
from tests.annotation.api.accounts import check_accounts, contents, ledger_of
from tests.annotation.campaign import annotate, lines, main
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer

FAULTS = Faults(
    rate_limited=0.05, overloaded=0.02, reset=0.01, refused=0.02, truncated=0.01, off_schema=0.01,
    lost_creates=1, cut_results=1,
)  # fmt: skip
CHAIN = {"fallback": ["claude-sonnet-5-5", "masked"], "timeout_s": 10.0}
CONCURRENCY = 8
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["tests.annotation.campaign", "anthropic"])


def request(text: str = "hello", **changes: Any) -> Request:
    shared = {"purpose": "describe", "provider": "anthropic", "model": "m"}
    shared |= {"system": "s", "messages": (("user", text),), "schema": {"type": "object"}, "effort": "low"}
    return Request(**shared | {"max_tokens": 64, "vote": 0, "example_set": "e"} | changes)


def test_the_key_holds_everything_that_can_change_the_answer() -> None:
    changes = [
        {"provider": "other"}, {"model": "n"}, {"system": "t"}, {"schema": {"type": "array"}},
        {"effort": "high"}, {"vote": 1}, {"example_set": "f"}, {"max_tokens": 65}, {"structured": False},
    ]  # fmt: skip
    keys = {request(**change).key for change in [{}, *changes]} | {request("other text").key}
    assert len(keys) == len(changes) + 2
    assert request(purpose="fuzz").key == request().key


def test_an_attempt_is_possibly_paid_until_it_ends(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    first = ledger.begin(request(), estimate_usd=0.5)
    assert (ledger.counts(), ledger.spent()) == ({"possibly_paid": 1}, 0.5)
    second = ledger.begin(request(), estimate_usd=0.5)
    ledger.end(first, state="unpaid", cost_usd=0.0, detail="HTTP 429")
    ledger.store(second, request().key, {"content": [], "usage": {"output_tokens": 1}}, cost_usd=0.1)
    assert (ledger.counts(), ledger.spent()) == ({"paid": 1, "unpaid": 1}, 0.1)
    assert ledger.spent([request().key, "unknown"]) == 0.1
    assert ledger.missing([request(), request("new"), request("new")]) == [request("new")]


def test_a_reply_is_written_once_and_clears_the_outcome(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.settle(request().key, "errored", "HTTP 500")
    assert ledger.outcome(request().key) == "errored"
    for text in ("first", "second"):
        ledger.store(ledger.begin(request(), estimate_usd=0.0), request().key, {"text": text}, cost_usd=0.0)
    assert ledger.reply(request().key) == {"text": "first"}
    assert ledger.outcome(request().key) is None


def test_export_is_json_lines_in_key_order_with_version_and_state(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    for text in ("a", "b", "c"):
        ledger.begin(request(text), estimate_usd=0.0)
    ledger.store(1, request("a").key, {"content": [], "usage": {"input_tokens": 3}}, cost_usd=0.1)
    ledger.settle(request("b").key, "errored")
    assert ledger.export(tmp_path / "ledger.jsonl") == 3
    rows = [json.loads(line) for line in (tmp_path / "ledger.jsonl").read_text().splitlines()]
    assert [row["key"] for row in rows] == sorted(row["key"] for row in rows)
    assert sorted(row["state"] for row in rows) == ["errored", "replied", "unanswered"]
    assert {row["version"] for row in rows} == {1}


def test_what_is_no_ledger_is_refused_with_one_message(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        Ledger(tmp_path / "missing.sqlite", read_only=True)
    (tmp_path / "text.sqlite").write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(ValueError, match="no ledger of crossdiff"):
        Ledger(tmp_path / "text.sqlite")
    newer = Ledger(tmp_path / "newer.sqlite")
    newer.connection.execute("UPDATE meta SET version = 99")
    newer.close()
    with pytest.raises(ValueError, match="version 99"):
        Ledger(tmp_path / "newer.sqlite")


def test_the_content_hash_is_that_of_answers_not_of_times(tmp_path: Path) -> None:
    for name, cost in (("a", 0.1), ("b", 0.2)):
        ledger = Ledger(tmp_path / name)
        ledger.store(ledger.begin(request(), estimate_usd=0.0), request().key, {"x": 1}, cost_usd=cost)
    assert content_hash(tmp_path / "a") == content_hash(tmp_path / "b")
    Ledger(tmp_path / "b").settle("other", "errored")
    assert content_hash(tmp_path / "a") != content_hash(tmp_path / "b")


def start(kind: str, address: str, store: Path, n: int, changes: dict[str, Any]) -> ForkServerProcess:
    """A process of its own, forked from one that has imported the program: imports took most of its time."""
    store.mkdir(parents=True, exist_ok=True)
    process = FORKS.Process(target=main, args=(kind, address, str(store), str(n), json.dumps(changes)))
    process.start()
    return process


def killed_and_resumed(kind: str, store: Path, n: int, kills: list[int]) -> MessagesServer:
    """Kill the process whenever the server has seen so many requests, and start it again."""
    waiting = sorted(kills)
    process: list[ForkServerProcess] = []

    def strike(number: int) -> None:
        if waiting and number >= waiting[0]:
            waiting.pop(0)
            process[0].kill()

    with MessagesServer(FAULTS, latency_s=0.01, on_arrival=strike) as server:
        for _ in range(len(kills) + 1):
            process[:] = [start(kind, server.address, store, n, CHAIN)]
            process[0].join(timeout=240)
            if process[0].exitcode == 0:
                break
        time.sleep(0.2)
    assert not waiting
    return server


def assert_resumed(kind: str, tmp_path: Path, n: int, kills: list[int]) -> None:
    server = killed_and_resumed(kind, tmp_path / "killed", n, kills)
    with MessagesServer(FAULTS, latency_s=0.01) as calm:
        found = annotate(kind, calm.address, tmp_path / "calm", n, **CHAIN)
    assert contents(tmp_path / "killed") == contents(tmp_path / "calm")
    assert (tmp_path / "killed" / "annotations.jsonl").read_text(encoding="utf-8") == lines(found)
    events = len(kills) * CONCURRENCY + server.statuses["reset"]
    if kind == "claude":
        check_accounts(ledger_of(tmp_path / "killed"), server, most_possibly_paid=events)
    else:
        sent = [request["custom_id"] for made in server.batches.values() for request in made.requests]
        assert len(sent) == len(set(sent))
        assert ledger_of(tmp_path / "killed").counts() == {"paid": len(sent)}


@pytest.fixture(autouse=True)
def key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))  # where the fork server looks


def test_after_a_kill_and_a_resume_the_ledger_is_the_same(tmp_path: Path) -> None:
    assert_resumed("claude", tmp_path, 6, [9])


@pytest.mark.slow
def test_after_ten_kills_the_ledger_is_the_same(tmp_path: Path) -> None:
    kills = np.random.default_rng(4).integers(10, 600, 10).tolist()
    assert_resumed("claude", tmp_path, 200, kills)


@pytest.mark.slow
def test_after_kills_around_the_creation_of_a_batch_none_is_paid_twice(tmp_path: Path) -> None:
    assert_resumed("claude_batch", tmp_path, 200, [5, 599, 600])


@pytest.mark.slow
def test_faults_cost_no_more_than_the_waits_asked_for(tmp_path: Path) -> None:
    """200 latents x 3 votes: at most 1.3 x the fault-free time plus the waits of one slot's chain."""
    seconds = {}
    for name, faults in (("calm", Faults()), ("faulty", FAULTS)):
        with MessagesServer(faults, latency_s=0.15) as server:
            started = time.monotonic()
            found = annotate("claude", server.address, tmp_path / name, 200, **CHAIN)
            seconds[name] = time.monotonic() - started
    assert len(found) == 200
    print(json.dumps(seconds | {"waits_asked_s": server.waits_asked, "statuses": dict(server.statuses)}))
    assert seconds["faulty"] <= 1.3 * seconds["calm"] + server.waits_asked
