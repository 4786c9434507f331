"""The ledger: every request, raw reply and attempt, in SQLite (WAL).

A reply is stored once under its key, and its request never sent again. An attempt is recorded as
`possibly_paid` before it is sent, so that the cost includes those in flight when a process died.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from crossdiff.annotation.api.requests import Request, sha256

VERSION = 1
MAX_COST_USD = 10_000.0
"""Largest cost of one attempt; a larger one is no bill."""
AttemptState = Literal["possibly_paid", "paid", "unpaid"]
_TABLES = """
CREATE TABLE IF NOT EXISTS meta (version INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS requests (key TEXT PRIMARY KEY, purpose TEXT, provider TEXT, model TEXT,
    vote INTEGER, example_set TEXT, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS replies (key TEXT PRIMARY KEY, body TEXT NOT NULL, usage TEXT, cost_usd REAL,
    received REAL);
CREATE TABLE IF NOT EXISTS outcomes (key TEXT PRIMARY KEY, state TEXT NOT NULL, detail TEXT);
CREATE TABLE IF NOT EXISTS attempts (id INTEGER PRIMARY KEY, key TEXT NOT NULL, state TEXT NOT NULL,
    cost_usd REAL, detail TEXT, batch TEXT, started REAL, ended REAL);
CREATE INDEX IF NOT EXISTS attempts_by_key ON attempts (key);
CREATE TABLE IF NOT EXISTS batches (submission TEXT PRIMARY KEY, batch TEXT, n_requests INTEGER,
    state TEXT NOT NULL, started REAL);
CREATE TABLE IF NOT EXISTS arrivals (source TEXT PRIMARY KEY, body TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS runs (run TEXT PRIMARY KEY, settings TEXT NOT NULL, created REAL);
"""


class Ledger:
    """One SQLite file, which survives a kill and may be shared by the processes of a machine."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self.path = path
        if read_only and not path.is_file():
            raise ValueError(f"ledger {path} does not exist; give the ledger of the run to replay")
        path.parent.mkdir(parents=True, exist_ok=True)
        address = f"{path.resolve().as_uri()}?mode={'ro' if read_only else 'rwc'}"
        self.connection = sqlite3.connect(address, uri=True, isolation_level=None, timeout=60)
        try:
            self._open(read_only=read_only)
        except sqlite3.DatabaseError as error:
            raise ValueError(
                f"{path} is no ledger of crossdiff ({error}); move it away or give another"
            ) from None

    def _open(self, *, read_only: bool) -> None:
        if not read_only:
            self.connection.execute("PRAGMA journal_mode=WAL")
            self.connection.execute("PRAGMA synchronous=NORMAL")
            self.connection.executescript(_TABLES)
            self.connection.execute(
                "INSERT INTO meta SELECT ? WHERE NOT EXISTS (SELECT 1 FROM meta)", (VERSION,)
            )
        (version,) = self.connection.execute("SELECT version FROM meta").fetchone()
        if version != VERSION:
            raise ValueError(
                f"ledger {self.path} has version {version}, this crossdiff reads {VERSION}; update crossdiff"
            )

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    def reply(self, key: str) -> dict[str, Any] | None:
        """The raw message that answered a request, or None; {} where it cannot be read."""
        row = self.connection.execute("SELECT body FROM replies WHERE key = ?", (key,)).fetchone()
        return _object(_loaded(row[0])) if row else None

    def missing(self, requests: Iterable[Request]) -> list[Request]:
        """The requests without a reply, each once, in order."""
        distinct = {request.key: request for request in requests}
        return [request for key, request in distinct.items() if self.reply(key) is None]

    def begin(self, request: Request, *, estimate_usd: float, batch: str | None = None) -> int:
        """Record an attempt as possibly paid, before it is sent; returns its id."""
        self.connection.execute(
            "INSERT OR IGNORE INTO requests VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                request.key, request.purpose, request.provider, request.model, request.vote,
                request.example_set, json.dumps(request.body(), sort_keys=True),
            ),
        )  # fmt: skip
        cursor = self.connection.execute(
            "INSERT INTO attempts (key, state, cost_usd, batch, started) "
            "VALUES (?, 'possibly_paid', ?, ?, ?)",
            (request.key, estimate_usd, batch, time.time()),
        )
        return int(cursor.lastrowid or 0)

    def end(self, attempt: int, *, state: AttemptState, cost_usd: float, detail: str = "") -> None:
        """Record how an attempt ended; until then it is possibly paid."""
        self.connection.execute(
            "UPDATE attempts SET state = ?, cost_usd = ?, detail = ?, ended = ? WHERE id = ?",
            (state, cost_usd, detail[:500], time.time(), attempt),
        )

    def arrived(self, source: int | str, body: str) -> None:
        """Keep an answer's text before it is read; `store` replaces it by the message."""
        self.connection.execute("INSERT OR REPLACE INTO arrivals VALUES (?, ?)", (str(source), body))

    def store(self, attempt: int, key: str, message: Mapping[str, Any], *, cost_usd: float) -> None:
        """Keep a reply and end its attempt as paid, in one transaction."""
        body, usage = (json.dumps(part, sort_keys=True) for part in (message, message.get("usage")))
        self.connection.execute("BEGIN IMMEDIATE")
        self.connection.execute(
            "INSERT OR IGNORE INTO replies VALUES (?, ?, ?, ?, ?)", (key, body, usage, cost_usd, time.time())
        )
        self.connection.execute("DELETE FROM outcomes WHERE key = ?", (key,))
        self.connection.execute("DELETE FROM arrivals WHERE source = ?", (str(attempt),))
        self.end(attempt, state="paid", cost_usd=cost_usd)
        self.connection.execute("COMMIT")

    def mend(self, reserve_of: Callable[[str, Mapping[str, Any]], float]) -> int:
        """Bill at their reserve the attempts whose stored cost is no amount (by an older version)."""
        broken = self.connection.execute(
            "SELECT a.id, r.model, r.body FROM attempts a JOIN requests r USING (key) "
            "WHERE a.cost_usd IS NULL OR a.cost_usd < 0 OR a.cost_usd > ?",
            (MAX_COST_USD,),
        ).fetchall()
        for attempt, model, body in broken:
            self.connection.execute(
                "UPDATE attempts SET cost_usd = ? WHERE id = ?",
                (reserve_of(model, json.loads(body)), attempt),
            )
        return len(broken)

    def settle(self, key: str, state: str, detail: str = "") -> None:
        """Record why a request has no reply: errored, expired or skipped_budget."""
        self.connection.execute(
            "INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?)", (key, state, detail[:500])
        )

    def outcome(self, key: str) -> str | None:
        """The state recorded for a request without a reply."""
        row = self.connection.execute("SELECT state FROM outcomes WHERE key = ?", (key,)).fetchone()
        return row[0] if row else None

    def spent(self, keys: Sequence[str] | None = None) -> float:
        """US dollars of all attempts (of `keys`): paid ones as billed, possibly paid ones as estimated."""
        question = (
            "SELECT COALESCE(SUM(cost_usd), 0) FROM attempts WHERE state != 'unpaid' "
            f"AND cost_usd BETWEEN 0 AND {MAX_COST_USD}"
        )
        if keys is None:
            return float(self.connection.execute(question).fetchone()[0])
        asked = f"{question} AND key = ?"
        return sum(float(self.connection.execute(asked, (key,)).fetchone()[0]) for key in keys)

    def attempt_cost(self, attempt: int) -> float:
        """Cost of one attempt: the reserve while possibly paid, then the bill."""
        row = self.connection.execute("SELECT cost_usd FROM attempts WHERE id = ?", (attempt,)).fetchone()
        return float(row[0] or 0.0)

    def counts(self) -> dict[str, int]:
        """Attempts by state."""
        return dict(self.connection.execute("SELECT state, COUNT(*) FROM attempts GROUP BY state"))

    def record_run(self, settings: Mapping[str, Any]) -> str:
        """Store the settings of a run for a replay; returns its id."""
        text = json.dumps(settings, sort_keys=True)
        run = sha256(text)[:16]
        self.connection.execute("INSERT OR IGNORE INTO runs VALUES (?, ?, ?)", (run, text, time.time()))
        return run

    def run_settings(self, run: str | None) -> dict[str, Any]:
        """Settings of the named run, or of the only one."""
        rows = dict(self.connection.execute("SELECT run, settings FROM runs ORDER BY created"))
        if run is None and len(rows) == 1:
            return json.loads(next(iter(rows.values())))
        if run not in rows:
            raise ValueError(
                f"ledger {self.path} holds runs {list(rows)}, not {run!r}; name one with annotator.run=<id>"
            )
        return json.loads(rows[run])

    def export(self, path: Path) -> int:
        """Write requests with replies and outcomes as JSONL, in key order; returns the number of lines."""
        rows = self.connection.execute(
            "SELECT r.key, r.purpose, r.provider, r.model, r.vote, r.example_set, r.body, p.body, p.usage, "
            "p.cost_usd, o.state FROM requests r LEFT JOIN replies p USING (key) "
            "LEFT JOIN outcomes o USING (key) ORDER BY r.key"
        ).fetchall()
        names = ("key", "purpose", "provider", "model", "vote", "example_set")
        with path.open("w", encoding="utf-8") as handle:
            for row in rows:
                request, reply, usage = (_loaded(text) if text else None for text in row[6:9])
                state = "replied" if reply else row[10] or "unanswered"
                record = dict(zip(names, row[:6], strict=True)) | {
                    "version": VERSION, "state": state, "request": request, "reply": reply, "usage": usage,
                    "cost_usd": row[9],
                }  # fmt: skip
                handle.write(json.dumps(record, sort_keys=True) + "\n")
        return len(rows)


def _loaded(text: str) -> Any:
    """Stored JSON, with null for NaN and infinities (of an older version); {} where unreadable."""
    try:
        return json.loads(text, parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return {}


def _object(content: Any) -> dict[str, Any]:
    return content if isinstance(content, dict) else {}


def content_hash(path: Path) -> str:
    """Hash of all replies, outcomes and runs of a ledger, which decide a replay."""
    ledger = Ledger(path, read_only=True)
    replies = ledger.connection.execute("SELECT key, body FROM replies ORDER BY key").fetchall()
    outcomes = ledger.connection.execute("SELECT key, state FROM outcomes ORDER BY key").fetchall()
    runs = ledger.connection.execute("SELECT run FROM runs ORDER BY run").fetchall()
    ledger.close()
    return sha256(json.dumps([replies, outcomes, runs]))[:16]
