"""The ledger's record of batch submissions: written before a batch is created, so that none is paid twice."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.prices import Meter
from crossdiff.annotation.api.requests import Request, sha256

FOREIGN = "foreign"
"""State of a batch on the server that turned out not to be ours."""


@dataclass(frozen=True)
class Submission:
    """One set of requests sent as one batch; `batch` is the server's id once it is known."""

    name: str
    batch: str | None
    n_requests: int
    started: float


class Submissions:
    """Reads and writes submissions; states are creating, created, collected (and foreign)."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger, self.connection = ledger, ledger.connection

    def record(self, requests: Sequence[Request], meter: Meter) -> Submission:
        """Write the submission and one possibly paid attempt per request, in one transaction."""
        stem = sha256(json.dumps(sorted(request.key for request in requests)))[:16]
        self.connection.execute("BEGIN IMMEDIATE")
        (earlier,) = self.connection.execute(
            "SELECT COUNT(*) FROM batches WHERE submission LIKE ?", (f"{stem}-%",)
        ).fetchone()
        found = Submission(f"{stem}-{earlier}", None, len(requests), time.time())
        self.connection.execute(
            "INSERT INTO batches VALUES (?, NULL, ?, 'creating', ?)",
            (found.name, found.n_requests, found.started),
        )
        for request in requests:
            self.ledger.begin(request, estimate_usd=meter.dearest(request), batch=found.name)
        self.connection.execute("COMMIT")
        return found

    def open_with(self, keys: Sequence[str]) -> list[Submission]:
        """Submissions not yet collected that hold any of these requests."""
        rows = self.connection.execute(
            "SELECT submission, batch, n_requests, started FROM batches "
            "WHERE state IN ('creating', 'created') ORDER BY started"
        ).fetchall()
        wanted = set(keys)
        found = [Submission(*row) for row in rows]
        return [submission for submission in found if wanted & set(self.keys(submission))]

    def keys(self, submission: Submission) -> list[str]:
        """Request keys of a submission."""
        rows = self.connection.execute(
            "SELECT key FROM attempts WHERE batch = ? ORDER BY id", (submission.name,)
        )
        return [key for (key,) in rows]

    def bodies(self, submission: Submission) -> list[tuple[str, dict[str, Any]]]:
        """Key and parameters of every request of a submission, as recorded."""
        rows = self.connection.execute(
            "SELECT r.key, r.body FROM attempts a JOIN requests r USING (key) "
            "WHERE a.batch = ? ORDER BY a.id",
            (submission.name,),
        )
        return [(key, json.loads(body)) for key, body in rows]

    def model(self, key: str) -> str:
        """The model that a recorded request asked for, by which it is billed."""
        (model,) = self.connection.execute("SELECT model FROM requests WHERE key = ?", (key,)).fetchone()
        return model

    def attempt(self, submission: Submission, key: str) -> int | None:
        """The attempt of a request inside a submission; None where it has none."""
        row = self.connection.execute(
            "SELECT id FROM attempts WHERE batch = ? AND key = ?", (submission.name, key)
        ).fetchone()
        return row[0] if row else None

    def created(self, submission: Submission, batch: str) -> Submission:
        """Remember the server's id."""
        self.connection.execute(
            "UPDATE batches SET batch = ?, state = 'created' WHERE submission = ?", (batch, submission.name)
        )
        return Submission(submission.name, batch, submission.n_requests, submission.started)

    def collected(self, submission: Submission) -> None:
        """All results were read."""
        self.connection.execute(
            "UPDATE batches SET state = 'collected' WHERE submission = ?", (submission.name,)
        )

    def disown(self, submission: Submission) -> Submission:
        """The adopted batch holds other requests: set it aside and go back to creating."""
        self.connection.execute(
            "INSERT OR REPLACE INTO batches VALUES (?, ?, 0, ?, ?)",
            (f"{FOREIGN}-{submission.batch}", submission.batch, FOREIGN, time.time()),
        )
        self.connection.execute(
            "UPDATE batches SET batch = NULL, state = 'creating' WHERE submission = ?", (submission.name,)
        )
        return Submission(submission.name, None, submission.n_requests, submission.started)

    def known_batches(self) -> set[str]:
        """Server ids that some submission already owns or set aside."""
        rows = self.connection.execute("SELECT batch FROM batches WHERE batch IS NOT NULL")
        return {batch for (batch,) in rows}
