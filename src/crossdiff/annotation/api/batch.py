"""Message Batches: half price; a submission whose answer was lost is adopted, never sent a second time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.api.client import (
    MAX_ATTEMPTS,
    backoff,
    bytes_per_token,
    check,
    client_of,
    patient,
    refusal,
    wait_after,
)
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.prices import Meter
from crossdiff.annotation.api.requests import Request
from crossdiff.annotation.api.submissions import Submission, Submissions
from crossdiff.annotation.settings import ClaudeBatch
from crossdiff.io.progress import bar

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

MAX_REQUESTS, MAX_BYTES = 10_000, 64_000_000
"""Per batch; the API takes 100,000 requests or 256 MB."""
CREATE_S = 600.0
"""Patience with the answer to a create: giving up early on a large body risks a second batch."""
LOOKS = 5
"""Times to look for a batch whose create was cut off, over 7.5 s, before another is created."""
CLOCK_SKEW_S = 300.0
ROUNDS = 2
"""A request that the server failed on is put into one more batch."""


@dataclass
class BatchTransport:
    """Fills the ledger through batches."""

    settings: ClaudeBatch
    ledger: Ledger
    meter: Meter
    progress: bool = True
    checked: set[str] = field(default_factory=set)

    def fill(self, requests: Sequence[Request], *, description: str) -> None:
        """Return when every request has a reply or an outcome in the ledger."""
        missing = self.ledger.missing(requests)
        if missing:
            asyncio.run(self._fill(missing, description))

    def prepare(self, requests: Sequence[Request]) -> None:
        """Check key and models, and count the tokens of a few prompts, before anything is paid."""
        asyncio.run(self._prepare(requests))

    async def _prepare(self, requests: Sequence[Request]) -> None:
        async with client_of(self.settings) as client:
            await check(self.settings, client, requests, self.checked)
            self.meter.counted_bytes_per_token = await bytes_per_token(client, requests)

    async def _fill(self, missing: Sequence[Request], description: str) -> None:
        submissions = Submissions(self.ledger)
        async with client_of(self.settings) as client:
            await check(self.settings, client, missing, self.checked)
            for submission in submissions.open_with([request.key for request in missing]):
                await _Collector(self, client, submissions, description, LOOKS).run(submission)
            for _ in range(ROUNDS):
                for part in _parts(self._affordable(self.ledger.missing(missing))):
                    submission = submissions.record(part, self.meter)
                    await _Collector(self, client, submissions, description).run(submission)

    def _affordable(self, requests: Sequence[Request]) -> list[Request]:
        """Requests that fit under the limit; the rest is settled as skipped_budget.

        A batch is possibly paid as soon as it is recorded, so its requests count as spent from here on;
        every result then replaces the reserve by the bill.
        """
        chosen: list[Request] = []
        for request in requests:
            if self.meter.affords(request):
                self.meter.spent += self.meter.dearest(request)
                chosen.append(request)
            else:
                self.ledger.settle(request.key, "skipped_budget", f"limit ${self.meter.max_usd}")
        return chosen


@dataclass
class _Collector:
    """Brings one submission to its end: create or adopt, wait, read the results."""

    transport: BatchTransport
    client: AsyncAnthropic
    submissions: Submissions
    description: str
    looks: int = 1

    async def run(self, submission: Submission) -> None:
        while True:
            if submission.batch is None:
                submission = self.submissions.created(submission, await self._create(submission))
            await self._wait(submission)
            if await self._collect(submission):
                self.submissions.collected(submission)
                return
            submission = self.submissions.disown(submission)

    async def _create(self, submission: Submission) -> str:
        """The server's id: of a batch that is already there, else of a new one."""
        import anthropic
        import httpx2

        looks = self.looks
        for number in range(MAX_ATTEMPTS):
            adopted = await self._look(submission, looks)
            if adopted is not None:
                return adopted
            looks = 1
            requests: Any = [
                {"custom_id": key, "params": body} for key, body in self.submissions.bodies(submission)
            ]
            wait = 0.0
            try:
                created = await self.client.messages.batches.create(requests=requests, timeout=CREATE_S)
                return created.id
            except anthropic.APIStatusError as error:
                wait = wait_after(error)
                if wait < 0:
                    raise refusal(error) from None
            except (anthropic.APIConnectionError, httpx2.HTTPError):
                wait, looks = 0.0, LOOKS  # it may exist: the next round looks before it creates
            await asyncio.sleep(wait or backoff(number))
        raise ValueError(f"no batch could be created in {MAX_ATTEMPTS} attempts; run again to go on")

    async def _look(self, submission: Submission, times: int) -> str | None:
        """Look for the submission's batch, again after a while: a server may list a batch late."""
        for number in range(times):
            found = await self._adopt(submission)
            if found is not None:
                return found
            if number + 1 < times:
                await asyncio.sleep(backoff(number))
        return None

    async def _adopt(self, submission: Submission) -> str | None:
        """A batch of this size, made after the submission was recorded, that no submission owns."""
        known = self.submissions.known_batches()
        page = await patient(lambda: self.client.messages.batches.list(limit=100))
        for batch in page.data:
            counts = batch.request_counts
            size = counts.canceled + counts.errored + counts.expired + counts.processing + counts.succeeded
            fresh = batch.created_at.timestamp() >= submission.started - CLOCK_SKEW_S
            if batch.id not in known and fresh and size == submission.n_requests:
                return batch.id
        return None

    async def _wait(self, submission: Submission) -> None:
        total = submission.n_requests
        enabled = self.transport.progress
        with bar(total=total, description=self.description, unit="call", enabled=enabled) as progress:
            while True:
                batch = await patient(lambda: self.client.messages.batches.retrieve(str(submission.batch)))
                progress.update(total - batch.request_counts.processing - progress.n)
                progress.set_postfix_str(batch.processing_status)
                if batch.processing_status == "ended":
                    return
                await asyncio.sleep(self.transport.settings.poll_s)

    async def _collect(self, submission: Submission) -> bool:
        """Read all results, opening a cut stream again; False where the batch holds other requests."""
        import anthropic
        import httpx2

        for number in range(MAX_ATTEMPTS):
            matched = n_rows = 0
            stream = await patient(lambda: self.client.messages.batches.results(str(submission.batch)))
            try:
                async for row in stream:
                    matched += self._keep(submission, row.custom_id, row.result)
                    n_rows += 1
            except (anthropic.APIConnectionError, httpx2.HTTPError, json.JSONDecodeError):
                await asyncio.sleep(backoff(number))
                continue
            if n_rows and not matched:
                return False
            if matched == submission.n_requests:
                return True
            await asyncio.sleep(backoff(number))  # fewer lines than requests: a stream that ended early
        if matched:
            self._settle_rest(submission)
            return True
        raise ValueError(f"the results of batch {submission.batch} stay cut; run again to go on")

    def _keep(self, submission: Submission, key: str, result: Any) -> bool:
        """Store one result once; False where it is not of this submission."""
        attempt = self.submissions.attempt(submission, key)
        if attempt is None:
            return False
        ledger, meter = self.transport.ledger, self.transport.meter
        if ledger.reply(key) is not None:
            return True
        meter.spent -= ledger.attempt_cost(attempt)
        if result.type == "succeeded":
            message = result.message.to_dict(mode="json")
            cost = meter.billed(self.submissions.model(key), message)
            meter.spent += cost
            ledger.store(attempt, key, message, cost_usd=cost)
        else:
            state = "expired" if result.type == "expired" else "errored"
            detail = str(getattr(result, "error", result.type))
            ledger.end(attempt, state="unpaid", cost_usd=0.0, detail=detail)
            ledger.settle(key, state, detail)
        return True

    def _settle_rest(self, submission: Submission) -> None:
        """Requests that the ended batch has no line for."""
        ledger = self.transport.ledger
        for key in self.submissions.keys(submission):
            if ledger.reply(key) is None and ledger.outcome(key) is None:
                ledger.settle(key, "errored", "the batch has no result for it")


def _parts(requests: Sequence[Request]) -> Iterator[Sequence[Request]]:
    part: list[Request] = []
    size = 0
    for request in requests:
        if part and (len(part) == MAX_REQUESTS or size + request.n_bytes > MAX_BYTES):
            yield part
            part, size = [], 0
        part.append(request)
        size += request.n_bytes
    if part:
        yield part
