"""What a ledger says, held against the local server's own count."""

from __future__ import annotations

import json
from pathlib import Path

from crossdiff.annotation.api.ledger import Ledger
from tests.messages_server import MessagesServer

DOLLARS = {"claude-haiku-5-5": (1e-6, 5e-6), "claude-sonnet-5-5": (3e-6, 15e-6)}


def ledger_of(store: Path) -> Ledger:
    return Ledger(store / "ledger.sqlite", read_only=True)


def contents(store: Path) -> str:
    """Everything in the ledger but times and attempts."""
    ledger = ledger_of(store)
    tables = {
        "requests": "SELECT key, purpose, provider, model, vote, body FROM requests ORDER BY key",
        "replies": "SELECT key, body, usage, cost_usd FROM replies ORDER BY key",
        "outcomes": "SELECT key, state FROM outcomes ORDER BY key",
    }
    return json.dumps({name: ledger.connection.execute(query).fetchall() for name, query in tables.items()})


def check_accounts(ledger: Ledger, server: MessagesServer, *, most_possibly_paid: int) -> None:
    """No reply is asked for again; whatever the server was paid for is in the ledger; no more than that."""
    received = dict(ledger.connection.execute("SELECT key, received FROM replies"))
    attempts = ledger.connection.execute("SELECT key, started FROM attempts").fetchall()
    assert all(started <= received.get(key, float("inf")) for key, started in attempts)
    counts = ledger.counts()
    possibly = counts.get("possibly_paid", 0)
    assert counts["paid"] == len(received)
    assert sum(server.arrived.values()) <= len(attempts)
    assert possibly <= most_possibly_paid
    assert counts["paid"] <= sum(server.paid.values()) <= counts["paid"] + possibly
    assert ledger.spent() >= server_bill(server) * (1 - 1e-9)


def server_bill(server: MessagesServer, *, factor: float = 1.0) -> float:
    """US dollars for every reply the server made, lost ones included."""
    total = 0.0
    for key, count in server.paid.items():
        usage, model = server.usages[key], server.bodies[key]["model"]
        total += count * (
            usage["input_tokens"] * DOLLARS[model][0] + usage["output_tokens"] * DOLLARS[model][1]
        )
    return factor * total
