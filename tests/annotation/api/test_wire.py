"""A server is hostile input: what it sends ends in a typed state, within the budget, and locks nobody out."""

from __future__ import annotations

import gzip
import json
import logging
import random
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from crossdiff.annotation.api import wire
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.requests import Meter, Prices
from crossdiff.annotation.api.secret import Secret, api_key
from crossdiff.annotation.schema import Described, Unreadable, read_described
from tests.annotation.api.accounts import ledger_of
from tests.annotation.campaign import annotate, settings
from tests.messages_replies import Faults, reply
from tests.messages_server import KEY, MODELS, MessagesServer, _Handler

Answer = Callable[[BaseHTTPRequestHandler, dict[str, Any]], None]
CATEGORIES = ["mathematics", "translation"]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setenv("TEST_KEY", KEY)
    monkeypatch.setattr("crossdiff.annotation.api.client.FIRST_WAIT_S", 0.001)


class HostileServer(MessagesServer):
    """The local server, but `answer` writes what comes back for a message."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer

    def __enter__(self):
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Hostile)
        self.http.daemon_threads = True
        self.http.messages = self  # type: ignore[attr-defined]
        Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self


class _Hostile(_Handler):
    def _message(self, body: dict[str, Any]) -> None:
        self.owner.arrive(body)
        self.owner.answer(self, body)  # type: ignore[attr-defined]


def send(handler: BaseHTTPRequestHandler, payload: bytes, status: int = 200, **headers: str) -> None:
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


def changed(**parts: Any) -> Answer:
    """A good reply with some of its fields replaced."""
    return lambda handler, body: send(handler, json.dumps({**reply(body, Faults()), **parts}).encode())


def text(content: str) -> list[dict[str, str]]:
    return [{"type": "text", "text": content}]


DEEP = b'{"content": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LONG = b'{"content": [], "usage": {"input_tokens": ' + b"9" * 5000 + b"}}"
REPLIES: dict[str, tuple[Answer, set[str]]] = {
    "usage NaN": (changed(usage={"input_tokens": float("nan"), "output_tokens": 1}), {"ok"}),
    "usage Infinity": (changed(usage={"input_tokens": float("inf"), "output_tokens": 1}), {"ok"}),
    "usage a list": (changed(usage=[1, 2]), {"ok"}),
    "usage strings": (changed(usage={"input_tokens": "9", "output_tokens": "x"}), {"ok"}),
    "usage negative": (changed(usage={"input_tokens": -(10**13), "output_tokens": 3}), {"ok"}),
    "usage huge": (changed(usage={"input_tokens": 10**30, "output_tokens": 10**8}), {"ok"}),
    "text null": (changed(content=[{"type": "text", "text": None}]), {"invalid"}),
    "text integer": (changed(content=[{"type": "text", "text": 7}]), {"invalid"}),
    "content of strings": (changed(content=["a", None, 3]), {"invalid"}),
    "stop reason a list": (changed(stop_reason=["refusal"], content=text("{}")), {"invalid"}),
    "integer of 5,000 digits in the text": (changed(content=text('{"a": ' + "9" * 5000 + "}")), {"invalid"}),
    "deep JSON in the text": (changed(content=text("{" * 90_000 + "}" * 90_000)), {"invalid"}),
    "deep JSON": (lambda handler, body: send(handler, DEEP), {"errored"}),
    "integer of 5,000 digits": (lambda handler, body: send(handler, LONG), {"errored"}),
    "HTML": (lambda handler, body: send(handler, b"<html>log in", content_type="text/html"), {"errored"}),
    "an unknown charset": (
        lambda handler, body: send(handler, b"\xff\xfe", content_type="text/plain; charset=hex"),
        {"errored"},
    ),
    "an error in an unknown charset": (
        lambda handler, body: send(handler, b"\xff", 400, content_type="application/json; charset=hex"),
        {"errored"},
    ),
    "an error with surrogates": (
        lambda handler, body: send(handler, b'{"error": {"message": "\\ud800 \\u001b[31m"}}', 400),
        {"errored"},
    ),
    "retry-after nan": (lambda handler, body: send(handler, b"{}", 529, retry_after="nan"), {"errored"}),
    "no JSON at all": (lambda handler, body: send(handler, b""), {"errored"}),
    "wrongly said to be gzip": (
        lambda handler, body: send(handler, b"plain", content_encoding="gzip"),
        {"errored"},
    ),
}


@pytest.mark.parametrize("name", REPLIES)
def test_every_reply_ends_in_a_state_and_the_next_run_goes_on(tmp_path: Path, name: str) -> None:
    answer, states = REPLIES[name]
    with HostileServer(answer) as server:
        found = annotate("claude", server.address, tmp_path, 2, n_votes=1, max_usd=0.2)
        arrived = sum(server.arrived.values())
    assert {annotation.state for annotation in found} == states
    spent = ledger_of(tmp_path).spent()
    assert (arrived > 0, 0 <= spent <= 0.2) == (True, True)
    with MessagesServer() as healthy:
        again = annotate("claude", healthy.address, tmp_path, 2, n_votes=1, max_usd=0.2)
    assert {annotation.state for annotation in again} == ({"invalid"} if states == {"invalid"} else {"ok"})
    assert spent <= ledger_of(tmp_path).spent() <= 0.2


def test_unusable_usage_is_billed_at_its_reserve(tmp_path: Path) -> None:
    with HostileServer(REPLIES["usage negative"][0]) as server:
        annotate("claude", server.address, tmp_path, 1, n_votes=1)
    (body,) = server.bodies.values()
    reserve = Meter(Prices.load(), 1.0).reserve_of(body["model"], body)
    assert ledger_of(tmp_path).spent() == pytest.approx(reserve)


def test_what_cannot_be_read_is_stored_as_it_came(tmp_path: Path) -> None:
    page = f"<html>log in with {KEY}".encode()
    with HostileServer(lambda handler, body: send(handler, page)) as server:
        annotate("claude", server.address, tmp_path, 1, n_votes=1)
    rows = ledger_of(tmp_path).connection.execute("SELECT body FROM arrivals").fetchall()
    assert rows == [("<html>log in with [key]",)] * wire.MAX_UNREADABLE


def test_a_poisoned_ledger_of_an_older_version_goes_on(tmp_path: Path) -> None:
    with MessagesServer() as server:
        annotate("claude", server.address, tmp_path, 2, n_votes=1)
        connection = sqlite3.connect(tmp_path / "ledger.sqlite")
        connection.execute("UPDATE attempts SET cost_usd = 9e999 WHERE id = 1")
        connection.execute("UPDATE attempts SET cost_usd = -13000000.0 WHERE id = 2")
        poison = '{"content": [{"type": "text", "text": null}, 5], "usage": {"input_tokens": Infinity}}'
        connection.execute("UPDATE replies SET body = ? WHERE rowid = 1", (poison,))
        connection.execute("DROP TABLE arrivals")
        connection.commit()
        connection.close()
        found = annotate("claude", server.address, tmp_path, 3, n_votes=1)
    assert sorted(annotation.state for annotation in found) == ["ok", "ok", "ok"]  # one after its repair
    assert 0 < ledger_of(tmp_path).spent() < 1
    Ledger(tmp_path / "ledger.sqlite").export(tmp_path / "ledger.jsonl")
    lines = (tmp_path / "ledger.jsonl").read_text(encoding="utf-8").splitlines()
    assert all("Infinity" not in line for line in lines)


def test_a_dripping_body_ends_in_time(tmp_path: Path) -> None:
    def drip(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        handler.send_response(200)
        handler.send_header("content-length", "10000")
        handler.end_headers()
        for _ in range(100):
            handler.wfile.write(b" ")
            handler.wfile.flush()
            time.sleep(0.05)

    started = time.monotonic()
    with HostileServer(drip) as server:
        (found,) = annotate("claude", server.address, tmp_path, 1, n_votes=1, timeout_s=0.3)
    assert found.state == "errored"
    assert time.monotonic() - started < 4
    assert sum(server.arrived.values()) == wire.MAX_SLOW


def test_a_gzip_bomb_is_cut_at_the_limit(tmp_path: Path) -> None:
    bomb = gzip.compress(b"0" * 200_000_000, compresslevel=1)
    with HostileServer(lambda handler, body: send(handler, bomb, content_encoding="gzip")) as server:
        (found,) = annotate("claude", server.address, tmp_path, 1, n_votes=1)
    assert found.state == "errored"
    assert sum(server.arrived.values()) == 1
    (detail,) = ledger_of(tmp_path).connection.execute("SELECT detail FROM outcomes").fetchone()
    assert detail == "the answer is larger than 4 MB"


def test_a_compressed_reply_is_read(tmp_path: Path) -> None:
    def zipped(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        send(handler, gzip.compress(json.dumps(reply(body, Faults())).encode()), content_encoding="gzip")

    with HostileServer(zipped) as server:
        (found,) = annotate("claude", server.address, tmp_path, 1, n_votes=1)
    assert found.state == "ok"


def test_a_redirect_to_another_host_is_refused_with_both_names(tmp_path: Path) -> None:
    with MessagesServer() as other:
        target = other.address

        def elsewhere(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
            send(handler, b"", 307, location=f"{target}/v1/messages")

        with (
            HostileServer(elsewhere) as server,
            pytest.raises(ValueError, match=f"{server.address} points to another address, '{target}'"),
        ):
            annotate("claude", server.address, tmp_path, 1, n_votes=1)
        assert not other.calls


def test_results_on_another_host_are_refused_with_both_names(tmp_path: Path, monkeypatch) -> None:
    with MessagesServer() as other, MessagesServer() as server:
        own, target = server.address, other.address
        real = _Handler._json

        def lying(self, content: dict[str, Any], status: int = 200, headers: Any = None) -> None:
            if content.get("results_url"):
                content = {**content, "results_url": content["results_url"].replace(own, target)}
            real(self, content, status, headers)

        monkeypatch.setattr(_Handler, "_json", lying)
        with pytest.raises(ValueError, match=f"{own} points to another address, '{target}'"):
            annotate("claude_batch", own, tmp_path, 1)
        monkeypatch.undo()
        assert not other.calls


@pytest.mark.parametrize("content", [b"<html>", b'{"custom_id": 5}\n{"result": []}\n[[[\n', b"\xff\x00\n"])
def test_results_that_cannot_be_read_leave_no_stray_traceback(
    tmp_path: Path, monkeypatch, caplog: pytest.LogCaptureFixture, content: bytes
) -> None:
    monkeypatch.setattr(_Handler, "_results", lambda self, batch: send(self, content))
    with MessagesServer() as server:
        with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match=r"stay unreadable; run again"):
            annotate("claude_batch", server.address, tmp_path, 1)
        assert not caplog.records
        monkeypatch.undo()
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        (found,) = annotate("claude_batch", server.address, tmp_path, 1)
    assert (found.state, len(server.batches)) == ("ok", 1)


def test_a_batch_that_the_server_forgot_is_sent_anew(tmp_path: Path) -> None:
    with MessagesServer() as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Handler, "_results", lambda self, batch: send(self, b"<html>"))
        with pytest.raises(ValueError, match="stay unreadable"):
            annotate("claude_batch", server.address, tmp_path, 1)
    with MessagesServer() as healthy:
        (found,) = annotate("claude_batch", healthy.address, tmp_path, 1)
    assert found.state == "ok"


def test_the_key_is_in_nothing_that_is_stored_or_shown(tmp_path: Path, capsys) -> None:
    quoted = json.dumps({"error": {"message": f"bad key {KEY}", "type": KEY}}).encode()
    with HostileServer(lambda handler, body: send(handler, quoted, 400)) as server:
        annotate("claude", server.address, tmp_path, 1, n_votes=1)
    with HostileServer(changed(echo={KEY: [KEY]}, content=text(f'{{"label": "{KEY}"'))) as server:
        annotate("claude", server.address, tmp_path, 1, n_votes=1)
    with (
        HostileServer(lambda handler, body: send(handler, quoted, 402)) as server,
        pytest.raises(ValueError, match=r"HTTP 402: bad key \[key\]"),
    ):
        annotate("claude", server.address, tmp_path, 2, n_votes=1)
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert (KEY.encode() in stored, b"[key]" in stored) == (False, True)
    assert KEY not in "".join(capsys.readouterr())


def test_a_key_among_the_settings_is_refused_and_not_shown() -> None:
    with pytest.raises(ValueError, match="base_url has credentials") as caught:
        settings("claude", f"https://user:{KEY}@localhost")
    assert KEY not in str(caught.value.errors()[0]["msg"])  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="a setting of the annotator contains the key") as refused:
        api_key(settings("compatible", "http://localhost:1", model=KEY))
    assert KEY not in str(refused.value)
    with pytest.raises(ValueError, match="is no http address"):
        settings("claude", "localhost:8000")


def test_a_short_key_is_no_secret_and_escaped_forms_are() -> None:
    assert Secret("none").clean("none of them") == "none of them"
    secret = Secret('a"b/c=d12345')
    assert secret.cleaned({"x": ['a"b/c=d12345', 12345, True, None]}) == {"x": ["[key]", 12345, True, None]}
    assert secret.clean('a\\"b/c=d12345 a%22b%2Fc%3Dd12345') == "[key] [key]"
    assert Secret("1234567890").cleaned([1234567890, "1234567890"]) == [None, "[key]"]


def test_a_server_that_fails_on_everything_is_not_asked_everything(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("crossdiff.annotation.api.client.GIVE_UP", 4)
    with HostileServer(lambda handler, body: send(handler, b"{}", 400)) as server:
        found = annotate("claude", server.address, tmp_path, 30, n_votes=1, concurrency=2)
    assert {annotation.state for annotation in found} == {"errored"}
    assert 4 <= len(server.arrived) <= 6


def mutated(value: Any, chance: random.Random) -> Any:
    """A JSON value with one part of it replaced, taken out, or doubled."""
    odd = [None, True, -1, 10**25, 0.5, "", "\ud800", [], {}, [[None]], {"type": "text"}, float("nan")]
    if isinstance(value, dict) and value and chance.random() < 0.8:
        name = chance.choice(sorted(value))
        rest = {key: item for key, item in value.items() if key != name}
        return rest if chance.random() < 0.15 else {**rest, name: mutated(value[name], chance)}
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], mutated(value[place], chance), *value[place:]]
    if isinstance(value, str) and chance.random() < 0.5:
        place = chance.randrange(len(value) + 1)
        return (
            value[:place] + chance.choice(["", '"', "}", "\x00", "\u202e", "9" * 5000]) + value[place + 1 :]
        )
    return chance.choice(odd)


def hostile_body(number: int) -> bytes:
    """Mutations of a good reply, random usage, random bytes: one of them by number."""
    chance = random.Random(number)
    body = {"model": "claude-haiku-5-5", "system": "", "messages": [{"role": "user", "content": str(number)}]}
    message = reply(body, Faults())
    match number % 4:
        case 0:
            return chance.randbytes(chance.randrange(200))
        case 1:
            names = ("input_tokens", "output_tokens", "cache_read_input_tokens")
            values = (None, -5, 1e300, float("inf"), "7", 10**12, [], 3)
            message["usage"] = {name: chance.choice(values) for name in names}
        case _:
            for _ in range(chance.randrange(1, 4)):
                message = mutated(message, chance)
    whole = json.dumps(message).encode()
    return whole if chance.random() < 0.9 else whole[: chance.randrange(len(whole))]


def test_two_thousand_hostile_bodies_raise_nothing_and_cost_something(tmp_path: Path) -> None:
    ledger, secret, meter = Ledger(tmp_path / "ledger.sqlite"), Secret(KEY), Meter(Prices.load(), 5.0)
    kinds: Counter[str] = Counter()
    ledger.connection.execute("PRAGMA synchronous=OFF")
    for number in range(2000):
        message = wire.read_object(hostile_body(number), secret)
        if message is None:
            kinds["unreadable"] += 1
            continue
        assert 0 <= meter.billed("claude-haiku-5-5", message, reserve=0.01) <= 0.01
        ledger.store(number, str(number), message, cost_usd=0.0)
        found = read_described(ledger.reply(str(number)) or {}, categories=CATEGORIES, n_examples=3)
        assert isinstance(found, Described | Unreadable)
        kinds[type(found).__name__] += 1
    assert min(kinds["unreadable"], kinds["Described"], kinds["Unreadable"]) > 100
    assert ledger.export(tmp_path / "ledger.jsonl") == 0


def test_hundreds_of_hostile_bodies_over_http_stay_within_the_budget(tmp_path: Path, caplog) -> None:
    numbers = iter(range(100_000))

    def answer(handler: BaseHTTPRequestHandler, body: dict[str, Any]) -> None:
        number = next(numbers)
        status = random.Random(number).choice([200, 200, 200, 200, 400, 500, 529, 301, 204])
        send(handler, b"" if status == 204 else hostile_body(number), status)

    with HostileServer(answer) as server:
        found = annotate("claude", server.address, tmp_path, 60, n_votes=2, max_usd=1.0)
    assert sum(server.arrived.values()) > 200
    assert {annotation.state for annotation in found} <= {"ok", "invalid", "errored", "truncated", "refused"}
    spent = ledger_of(tmp_path).spent()
    assert 0 < spent <= 1.0
    with MessagesServer() as healthy:
        again = annotate("claude", healthy.address, tmp_path, 60, n_votes=2, max_usd=1.0)
    assert sum(annotation.state == "ok" for annotation in again) >= sum(a.state == "ok" for a in found)
    assert spent <= ledger_of(tmp_path).spent() <= 1.0
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


class InProcess:
    """Answers without a socket; everything above the transport is the real client."""

    def __init__(self, store: Path, body: Callable[[int], bytes] | None) -> None:
        self.store, self.body = store, body
        self.arrived, self.costs = 0, [0.0]

    async def handle(self, request: Any) -> Any:
        """As `httpx2.AsyncHTTPTransport.handle_async_request`."""
        if request.method == "GET":
            models = {"data": [{"id": name, "lifecycle": state} for name, state in MODELS.items()]}
            return self._response(models)
        asked = json.loads(await request.aread())
        if request.url.path.endswith("count_tokens"):
            return self._response({"input_tokens": 500})
        if self.body is None:
            return self._response(reply(asked, Faults()))
        self.arrived += 1
        if self.arrived % 50 == 0:
            self.costs.append(ledger_of(self.store).spent())
        status = random.Random(self.arrived).choice([*[200] * 9, 400, 500, 529])
        return self._response(self.body(self.arrived), status)

    @staticmethod
    def _response(content: Any, status: int = 200) -> Any:
        import httpx2

        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        return httpx2.Response(status, stream=httpx2.ByteStream(body))


@pytest.mark.slow
@pytest.mark.parametrize(("n", "max_usd"), [(1150, 1e6), (300, 0.5)], ids=["two thousand", "a small budget"])
def test_runs_of_hostile_replies_cost_more_and_more_and_lock_nobody_out(
    tmp_path: Path, monkeypatch, caplog, n: int, max_usd: float
) -> None:
    """2,000 replies and more reach the annotator through its own client, store and repairs."""
    import httpx2

    hostile, good = InProcess(tmp_path, hostile_body), InProcess(tmp_path, None)
    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", hostile.handle)
    found = annotate("claude", "http://in.process", tmp_path, n, n_votes=1, max_usd=max_usd)
    costs = [*hostile.costs, ledger_of(tmp_path).spent()]
    assert (costs == sorted(costs), costs[-1] <= max_usd) == (True, True)
    assert hostile.arrived > (2000 if max_usd > 1 else 50)
    monkeypatch.setattr(httpx2.AsyncHTTPTransport, "handle_async_request", good.handle)
    again = annotate("claude", "http://in.process", tmp_path, n, n_votes=1, max_usd=max_usd + 10)
    assert costs[-1] <= ledger_of(tmp_path).spent() <= max_usd + 10
    before, after = (Counter(annotation.state for annotation in rows) for rows in (found, again))
    assert set(after) <= {"ok", "invalid", "truncated", "refused"}
    assert after["ok"] >= before["ok"] + before["errored"] + before["skipped_budget"]
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
