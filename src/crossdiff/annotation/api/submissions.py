"""Batches in the ledger, recorded before they are created so that none is paid twice; and their results."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.api.client import backoff, patiently
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.requests import Meter, Request, sha256
from crossdiff.annotation.api.secret import Secret
from crossdiff.annotation.schema import one_line

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

FOREIGN = "foreign"
"""State of a batch on the server that has other requests."""
READINGS = 5
"""Times to read incomplete results."""


@dataclass(frozen=True)
class SentBatch:
    """A submission: requests sent as one batch; `batch` is the server's id once known."""

    name: str
    batch: str | None
    n_requests: int
    started: float


class Submissions:
    """Reads and writes submissions; states are creating, created, collected, foreign."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.connection = ledger, ledger.connection

    def record(self, requests: Sequence[Request], meter: Meter) -> SentBatch:
        """Write the submission and one possibly paid attempt per request, in one transaction."""
        stem = sha256(json.dumps(sorted(request.key for request in requests)))[:16]
        self.connection.execute("BEGIN IMMEDIATE")
        (earlier,) = self.connection.execute(
            "SELECT COUNT(*) FROM batches WHERE submission LIKE ?", (f"{stem}-%",)
        ).fetchone()
        sent = SentBatch(f"{stem}-{earlier}", None, len(requests), time.time())
        self.connection.execute(
            "INSERT INTO batches VALUES (?, NULL, ?, 'creating', ?)",
            (sent.name, sent.n_requests, sent.started),
        )
        for request in requests:
            self.ledger.begin(request, estimate_usd=meter.dearest(request), batch=sent.name)
        self.connection.execute("COMMIT")
        return sent

    def open_with(self, keys: Sequence[str]) -> list[SentBatch]:
        """Uncollected submissions with any of these requests."""
        rows = self.connection.execute(
            "SELECT submission, batch, n_requests, started FROM batches "
            "WHERE state IN ('creating', 'created') ORDER BY started"
        ).fetchall()
        wanted = set(keys)
        return [sent for sent in (SentBatch(*row) for row in rows) if wanted & set(self.keys(sent))]

    def keys(self, sent: SentBatch) -> list[str]:
        """Request keys of a submission."""
        rows = self.connection.execute("SELECT key FROM attempts WHERE batch = ? ORDER BY id", (sent.name,))
        return [key for (key,) in rows]

    def bodies(self, sent: SentBatch) -> list[tuple[str, dict[str, Any]]]:
        """Key and parameters of every request of a submission, as recorded."""
        rows = self.connection.execute(
            "SELECT r.key, r.body FROM attempts a JOIN requests r USING (key) "
            "WHERE a.batch = ? ORDER BY a.id",
            (sent.name,),
        )
        return [(key, json.loads(body)) for key, body in rows]

    def model(self, key: str) -> str:
        """The model of a recorded request, by which it is billed."""
        (model,) = self.connection.execute("SELECT model FROM requests WHERE key = ?", (key,)).fetchone()
        return model

    def attempt(self, sent: SentBatch, key: str) -> int | None:
        """The attempt of a request inside a submission; None where it has none."""
        row = self.connection.execute(
            "SELECT id FROM attempts WHERE batch = ? AND key = ?", (sent.name, key)
        ).fetchone()
        return row[0] if row else None

    def created(self, sent: SentBatch, batch: str) -> SentBatch:
        """Record the server's id."""
        self.connection.execute(
            "UPDATE batches SET batch = ?, state = 'created' WHERE submission = ?", (batch, sent.name)
        )
        return SentBatch(sent.name, batch, sent.n_requests, sent.started)

    def collected(self, sent: SentBatch) -> None:
        """Record that all results were read."""
        self.connection.execute("UPDATE batches SET state = 'collected' WHERE submission = ?", (sent.name,))

    def disown(self, sent: SentBatch) -> SentBatch:
        """Set aside an adopted batch with other requests, and go back to creating."""
        self.connection.execute(
            "INSERT OR REPLACE INTO batches VALUES (?, ?, 0, ?, ?)",
            (f"{FOREIGN}-{sent.batch}", sent.batch, FOREIGN, time.time()),
        )
        self.connection.execute(
            "UPDATE batches SET batch = NULL, state = 'creating' WHERE submission = ?", (sent.name,)
        )
        return SentBatch(sent.name, None, sent.n_requests, sent.started)

    def known_batches(self) -> set[str]:
        """Server ids that some submission already owns or set aside."""
        rows = self.connection.execute("SELECT batch FROM batches WHERE batch IS NOT NULL")
        return {batch for (batch,) in rows}


@dataclass
class BatchResults:
    """Reads results of ended batches; a line becomes a reply or a state, or is kept as text."""

    client: AsyncAnthropic
    submissions: Submissions
    meter: Meter
    base_url: str
    secret: Secret

    def __post_init__(self) -> None:
        self.ledger = self.submissions.ledger

    async def collect(self, sent: SentBatch, batch: Mapping[str, Any]) -> bool:
        """Read all results, again where lines are missing; False where the batch has other requests."""
        import httpx2

        url = self._results_url(sent, batch)
        for number in range(READINGS):
            body = await patiently(lambda: self.client.get(url, cast_to=httpx2.Response), bytes)
            rows = self._rows(sent, body)
            matched = {key for key, result in rows if self._keep(sent, key, result)}
            if rows and not matched:
                return False
            if len(matched) == sent.n_requests:
                return True
            if number + 1 < READINGS:
                await asyncio.sleep(backoff(number))
        if matched:
            self._settle_rest(sent)
            return True
        raise ValueError(f"the results of batch {sent.batch} stay unreadable; run again to continue")

    def _results_url(self, sent: SentBatch, batch: Mapping[str, Any]) -> str:
        """Address of the results; ForeignOrigin where it is on another host."""
        from crossdiff.annotation.api.wire import ForeignOrigin, foreign, origin

        url = batch.get("results_url")
        if not isinstance(url, str):
            return f"/v1/messages/batches/{sent.batch}/results"
        try:
            target = origin(url)
        except ValueError:  # a port that is no number
            target = url
        if target != origin(self.base_url):
            raise ForeignOrigin(foreign(origin(self.base_url), one_line(target)))
        return url

    def _rows(self, sent: SentBatch, body: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Key and result of every readable line; the others are kept as text."""
        from crossdiff.annotation.api.wire import read_object

        rows = []
        for number, line in enumerate(body.split(b"\n")):
            row = read_object(line, self.secret) or {}
            key, result = row.get("custom_id"), row.get("result")
            if isinstance(key, str) and isinstance(result, dict):
                rows.append((key, result))
            elif line.strip():
                text = self.secret.clean(line.decode("utf-8", "replace"))
                self.ledger.arrived(f"{sent.batch} line {number}", text)
        return rows

    def _keep(self, sent: SentBatch, key: str, result: Mapping[str, Any]) -> bool:
        """Store one result once; False where it is not of this submission."""
        attempt = self.submissions.attempt(sent, key)
        if attempt is None:
            return False
        ledger, meter = self.ledger, self.meter
        if ledger.reply(key) is not None:
            return True
        reserve, message = ledger.attempt_cost(attempt), result.get("message")
        if result.get("type") != "succeeded":
            state = "expired" if result.get("type") == "expired" else "errored"
            detail = one_line(json.dumps(result))[:300]
            meter.spent -= reserve
            ledger.end(attempt, state="unpaid", cost_usd=0.0, detail=detail)
            ledger.settle(key, state, detail)
        elif isinstance(message, dict) and isinstance(message.get("content"), list):
            cost = meter.billed(self.submissions.model(key), message, reserve=reserve)
            meter.spent += cost - reserve
            ledger.store(attempt, key, message, cost_usd=cost)
        else:  # stays possibly paid, at its reserve
            ledger.arrived(attempt, json.dumps(result))
            ledger.settle(key, "errored", "the result is no message")
        return True

    def _settle_rest(self, sent: SentBatch) -> None:
        """Settle requests without a line in the ended batch as errored."""
        for key in self.submissions.keys(sent):
            if self.ledger.reply(key) is None and self.ledger.outcome(key) is None:
                self.ledger.settle(key, "errored", "the batch has no result for it")
