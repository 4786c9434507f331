"""Message Batches: half price; a submission whose answer was lost is adopted, never sent a second time."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.client import MAX_ATTEMPTS, backoff, client_of, patient, preflight, wait_after
from crossdiff.annotation.ledger import Ledger
from crossdiff.annotation.prices import Meter
from crossdiff.annotation.requests import Request
from crossdiff.annotation.settings import ClaudeBatch
from crossdiff.annotation.submissions import Submission, Submissions
from crossdiff.io.progress import bar

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

MAX_REQUESTS = 10_000
"""Per batch; the API takes 100,000 requests or 256 MB."""
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

    async def _fill(self, missing: Sequence[Request], description: str) -> None:
        submissions = Submissions(self.ledger)
        async with client_of(self.settings) as client:
            models = sorted({request.model for request in missing} - self.checked)
            await preflight(client, models)
            self.checked |= set(models)
            for submission in submissions.open_with([request.key for request in missing]):
                await _Collector(self, client, submissions, description).run(submission)
            for _ in range(ROUNDS):
                waiting = self._affordable(self.ledger.missing(missing))
                for part in _parts(waiting):
                    submission = submissions.record(part, self.meter)
                    await _Collector(self, client, submissions, description).run(submission)

    def _affordable(self, requests: Sequence[Request]) -> list[Request]:
        """Requests that fit under the limit; the rest is settled as skipped_budget."""
        chosen: list[Request] = []
        self.meter.reserved.clear()
        for place, request in enumerate(requests):
            if self.meter.affords(request):
                self.meter.reserved[place] = self.meter.estimate(request)
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

    async def run(self, submission: Submission) -> None:
        while True:
            if submission.batch is None:
                submission = self.submissions.created(submission, await self._create(submission))
            await self._wait(submission)
            if await self._collect(submission):
                self.submissions.collected(submission)
                self.transport.meter.reserved.clear()
                return
            submission = self.submissions.disown(submission)

    async def _create(self, submission: Submission) -> str:
        """The server's id: of a batch that is already there, else of a new one."""
        import anthropic
        import httpx2

        for number in range(MAX_ATTEMPTS):
            adopted = await self._adopt(submission)
            if adopted is not None:
                return adopted
            requests: Any = [
                {"custom_id": key, "params": body} for key, body in self.submissions.bodies(submission)
            ]
            wait = 0.0
            try:
                return (await self.client.messages.batches.create(requests=requests)).id
            except anthropic.APIStatusError as error:
                wait = wait_after(error)
                if wait < 0:
                    raise ValueError(f"the server refused the batch: {error.api_message}") from None
            except (anthropic.APIConnectionError, httpx2.HTTPError):
                wait = 0.0  # it may exist: the next round looks before it creates
            await asyncio.sleep(wait or backoff(number))
        raise ConnectionError(f"no batch could be created in {MAX_ATTEMPTS} attempts; run again to go on")

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
            matched = 0
            try:
                async for row in await self.client.messages.batches.results(str(submission.batch)):
                    matched += self._keep(submission, row.custom_id, row.result)
            except (
                anthropic.APIConnectionError,
                anthropic.InternalServerError,
                httpx2.HTTPError,
                ValueError,
            ):
                await asyncio.sleep(backoff(number))
                continue
            if matched:
                self._settle_rest(submission)
            return matched > 0
        raise ConnectionError(f"the results of batch {submission.batch} stay cut; run again to go on")

    def _keep(self, submission: Submission, key: str, result: Any) -> bool:
        """Store one result once; False where it is not of this submission."""
        attempt = self.submissions.attempt(submission, key)
        if attempt is None:
            return False
        ledger = self.transport.ledger
        if ledger.reply(key) is not None:
            return True
        if result.type == "succeeded":
            message = result.message.to_dict(mode="json")
            cost = self.transport.meter.billed(self.submissions.model(key), message)
            self.transport.meter.spent += cost
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
    for start in range(0, len(requests), MAX_REQUESTS):
        yield requests[start : start + MAX_REQUESTS]
