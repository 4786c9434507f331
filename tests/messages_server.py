"""A local server that speaks enough of the Messages API over real HTTP to exercise the real SDK.

/v1/messages, /v1/messages/count_tokens, /v1/messages/batches (create, list, retrieve, results), /v1/models.
It injects faults and keeps its own count of what arrived and what would have been paid.
"""

from __future__ import annotations

import json
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.messages_replies import Faults, body_hash, reply, text_of, uniform

MODELS = {
    "claude-haiku-5-5": "active",
    "claude-sonnet-5-5": "active",
    "claude-opus-5-5": "active",
    "claude-3-opus": "retired",
}
KEY = "sk-test-0123456789abcdef"


@dataclass
class Batch:
    name: str
    requests: list[dict[str, Any]]
    created: str
    polls: int = 0

    def shown(self, address: str, *, ended: bool) -> dict[str, Any]:
        counts = dict.fromkeys(("canceled", "errored", "expired", "processing", "succeeded"), 0)
        counts["succeeded" if ended else "processing"] = len(self.requests)
        return {
            "id": self.name, "type": "message_batch", "created_at": self.created, "expires_at": self.created,
            "ended_at": self.created if ended else None, "request_counts": counts,
            "processing_status": "ended" if ended else "in_progress",
            "results_url": f"{address}/v1/messages/batches/{self.name}/results" if ended else None,
            "archived_at": None, "cancel_initiated_at": None,
        }  # fmt: skip


@dataclass
class MessagesServer:
    """Counts by hash of a request's body: `arrived`, and `paid` where a reply was made (lost ones too)."""

    faults: Faults = field(default_factory=Faults)
    latency_s: float = 0.0
    polls_until_ended: int = 1
    on_arrival: Callable[[int], None] = lambda number: None
    arrived: Counter[str] = field(default_factory=Counter)
    paid: Counter[str] = field(default_factory=Counter)
    usages: dict[str, dict[str, int]] = field(default_factory=dict)
    statuses: Counter[str] = field(default_factory=Counter)
    calls: Counter[str] = field(default_factory=Counter)
    bodies: dict[str, dict[str, Any]] = field(default_factory=dict)
    batches: dict[str, Batch] = field(default_factory=dict)
    waits_asked: float = 0.0
    in_flight: int = 0
    most_in_flight: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __enter__(self) -> Self:
        self.http = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.http.daemon_threads = True
        self.http.messages = self  # type: ignore[attr-defined]
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *details: object) -> None:
        self.http.shutdown()
        self.http.server_close()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.http.server_address[1]}"

    def arrive(self, body: dict[str, Any]) -> tuple[str, int]:
        """The request's hash, and how often it has arrived by now."""
        key = body_hash(body)
        with self.lock:
            self.arrived[key] += 1
            self.bodies[key] = body
            self.in_flight += 1
            self.most_in_flight = max(self.most_in_flight, self.in_flight)
            number = sum(self.arrived.values())
        self.on_arrival(number)
        return key, self.arrived[key]

    def pay(self, key: str, body: dict[str, Any]) -> dict[str, Any]:
        """The reply, counted as paid."""
        message = reply(body, self.faults)
        with self.lock:
            self.paid[key] += 1
            self.usages[key] = message["usage"]
            self.statuses[message["stop_reason"]] += 1
        return message


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1
    disable_nagle_algorithm = True

    @property
    def owner(self) -> MessagesServer:
        return self.server.messages  # type: ignore[attr-defined]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if not self._authorised(path):
            return
        batch = re.fullmatch(r"/v1/messages/batches/(\w+)(/results)?", path)
        if path == "/v1/models":
            self._json({"data": [_model(name) for name in MODELS], "has_more": False})
        elif path == "/v1/messages/batches":
            shown = [b.shown(self.owner.address, ended=False) for b in self.owner.batches.values()]
            self._json({"data": shown[::-1], "has_more": False, "first_id": None, "last_id": None})
        elif batch and batch.group(1) in self.owner.batches:
            found = self.owner.batches[batch.group(1)]
            if batch.group(2):
                self._results(found)
            else:
                found.polls += 1
                ended = found.polls > self.owner.polls_until_ended
                self._json(found.shown(self.owner.address, ended=ended))
        else:
            self._error(404, "not_found_error", "no such thing")

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        if not self._authorised(self.path):
            return
        match self.path:
            case "/v1/messages":
                self._message(body)
            case "/v1/messages/count_tokens":
                self._json({"input_tokens": len(text_of(body)) // 4})
            case "/v1/messages/batches":
                self._create(body["requests"])
            case _:
                self._error(404, "not_found_error", "no such thing")

    def _authorised(self, path: str) -> bool:
        with self.owner.lock:
            self.owner.calls[f"{self.command} {path}"] += 1
        given = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
        if given == KEY:
            return True
        self._error(401, "authentication_error", "invalid key")
        return False

    def _message(self, body: dict[str, Any]) -> None:
        owner, faults = self.owner, self.owner.faults
        key, number = owner.arrive(body)
        try:
            time.sleep(owner.latency_s)
            fate = uniform("fate", key, number)
            if fate < faults.rate_limited:
                owner.waits_asked += float(faults.retry_after)
                self._error(429, "rate_limit_error", "slow down", {"retry-after": faults.retry_after})
            elif fate < faults.rate_limited + faults.overloaded:
                self._error(529, "overloaded_error", "overloaded")
            elif fate < faults.rate_limited + faults.overloaded + faults.reset:
                if uniform("late", key, number) < 0.5:
                    owner.pay(key, body)
                self._reset()
            else:
                self._json(owner.pay(key, body))
        finally:
            with owner.lock:
                owner.in_flight -= 1

    def _create(self, requests: list[dict[str, Any]]) -> None:
        owner = self.owner
        with owner.lock:
            name = f"msgbatch_{len(owner.batches):04d}"
            owner.batches[name] = Batch(name, requests, datetime.now(UTC).isoformat())
        for request in requests:
            key, _ = owner.arrive(request["params"])
            owner.pay(key, request["params"])
        if owner.calls["POST /v1/messages/batches"] <= owner.faults.lost_creates:
            self._reset()
            return
        self._json(owner.batches[name].shown(owner.address, ended=False))

    def _results(self, batch: Batch) -> None:
        """Lines in reverse order; a cut stream is reset inside a line, a quiet one leaves lines out."""
        owner = self.owner
        lines = [
            json.dumps({"custom_id": r["custom_id"], "result": {"type": "succeeded", "message": message}})
            for r in reversed(batch.requests)
            for message in [reply(r["params"], owner.faults)]
        ]
        number = owner.calls[f"GET /v1/messages/batches/{batch.name}/results"]
        if number <= owner.faults.quiet_cuts:
            lines = lines[: len(lines) // 2]
        content = "".join(line + "\n" for line in lines).encode()
        self.send_response(200)
        self.send_header("content-type", "application/binary")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if number <= owner.faults.cut_results:
            self.wfile.write(content[: len(content) // 2])
            self.wfile.flush()
            self._reset()
        else:
            self.wfile.write(content)

    def _json(
        self, content: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
    ) -> None:
        payload = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)

    def _error(self, status: int, kind: str, text: str, headers: dict[str, str] | None = None) -> None:
        with self.owner.lock:
            self.owner.statuses[str(status)] += 1
        self._json({"type": "error", "error": {"type": kind, "message": text}}, status, headers)

    def _reset(self) -> None:
        """Close so that the other side sees a connection reset."""
        with self.owner.lock:
            self.owner.statuses["reset"] += 1
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()


def _model(name: str) -> dict[str, Any]:
    created = "2026-01-01T00:00:00Z"
    return {
        "id": name,
        "type": "model",
        "display_name": name,
        "created_at": created,
        "lifecycle": MODELS[name],
    }
