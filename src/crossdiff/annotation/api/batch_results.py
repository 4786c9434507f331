"""Results of a batch, line by line: each becomes a reply, a state, or is kept as it came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.api.client import backoff, patiently
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.prices import Meter
from crossdiff.annotation.api.secret import Secret
from crossdiff.annotation.api.submissions import Submission, Submissions
from crossdiff.annotation.schema import one_line

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

READINGS = 5
"""Times to read results that lack lines."""


@dataclass
class BatchResults:
    """Reads the results of ended batches into the ledger."""

    client: AsyncAnthropic
    submissions: Submissions
    ledger: Ledger
    meter: Meter
    base_url: str
    secret: Secret

    async def collect(self, submission: Submission, batch: Mapping[str, Any]) -> bool:
        """Read all results, again where lines are missing; False where the batch holds other requests."""
        import httpx2

        url = self._results_url(submission, batch)
        for number in range(READINGS):
            body = await patiently(lambda: self.client.get(url, cast_to=httpx2.Response), bytes)
            rows = self._rows(submission, body)
            matched = {key for key, result in rows if self._keep(submission, key, result)}
            if rows and not matched:
                return False
            if len(matched) == submission.n_requests:
                return True
            if number + 1 < READINGS:
                await asyncio.sleep(backoff(number))
        if matched:
            self._settle_rest(submission)
            return True
        raise ValueError(f"the results of batch {submission.batch} stay unreadable; run again to go on")

    def _results_url(self, submission: Submission, batch: Mapping[str, Any]) -> str:
        """Where the results are; ForeignOrigin where the server points to another host."""
        from crossdiff.annotation.api.wire import ForeignOrigin, foreign, origin

        base = self.base_url
        url = batch.get("results_url")
        if not isinstance(url, str):
            return f"/v1/messages/batches/{submission.batch}/results"
        try:
            target = origin(url)
        except ValueError:  # a port that is no number
            target = url
        if target != origin(base):
            raise ForeignOrigin(foreign(origin(base), one_line(target)))
        return url

    def _rows(self, submission: Submission, body: bytes) -> list[tuple[str, dict[str, Any]]]:
        """Key and result of every readable line; the others are kept as they came."""
        from crossdiff.annotation.api.wire import read_object

        rows = []
        for number, line in enumerate(body.split(b"\n")):
            row = read_object(line, self.secret) or {}
            key, result = row.get("custom_id"), row.get("result")
            if isinstance(key, str) and isinstance(result, dict):
                rows.append((key, result))
            elif line.strip():
                text = self.secret.clean(line.decode("utf-8", "replace"))
                self.ledger.arrived(f"{submission.batch} line {number}", text)
        return rows

    def _keep(self, submission: Submission, key: str, result: Mapping[str, Any]) -> bool:
        """Store one result once; False where it is not of this submission."""
        attempt = self.submissions.attempt(submission, key)
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
        else:  # it stays possibly paid, at its reserve
            ledger.arrived(attempt, json.dumps(result))
            ledger.settle(key, "errored", "the result is no message")
        return True

    def _settle_rest(self, submission: Submission) -> None:
        """Requests that the ended batch has no line for."""
        for key in self.submissions.keys(submission):
            if self.ledger.reply(key) is None and self.ledger.outcome(key) is None:
                self.ledger.settle(key, "errored", "the batch has no result for it")
