"""Message Batches, at half price; a batch whose create was not answered is adopted, not sent again."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.api.client import ServerTransport, backoff, patient, rows_of
from crossdiff.annotation.api.requests import Request
from crossdiff.annotation.api.secret import Secret, api_key
from crossdiff.annotation.api.submissions import BatchResults, SentBatch, Submissions
from crossdiff.annotation.schema import one_line
from crossdiff.annotation.settings import ClaudeBatch
from crossdiff.io.progress import bar

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

MAX_REQUESTS, MAX_BYTES = 10_000, 64_000_000
"""Per batch; the API takes 100,000 requests or 256 MB."""
CREATE_S = 600.0
"""Seconds to wait for the answer to a create, because giving up early risks a second batch."""
LOOKS = 5
"""Times, over 7.5 s, to look for a batch whose create was not answered before another is created."""
CLOCK_SKEW_S = 300.0
ROUNDS = 2
"""Batches that a request is put into; the second after an error of the server."""
MAX_BATCH_S = 26 * 3600.0
"""The API ends a batch after 24 hours."""
MAX_FOREIGN = 5
"""Adopted batches with other requests after which the run stops."""
_BATCH_ID = re.compile(r"[\w.:-]{1,200}")


@dataclass
class BatchTransport(ServerTransport[ClaudeBatch]):
    """Sends requests in batches."""

    async def send(self, client: AsyncAnthropic, requests: Sequence[Request], description: str) -> None:
        """Collect earlier batches with these requests, then send the missing ones in new batches."""
        submissions = Submissions(self.ledger)
        for sent in submissions.open_with([request.key for request in requests]):
            await _Collector(self, client, submissions, description, LOOKS).run(sent)
        for _ in range(ROUNDS):
            for part in _parts(self._affordable(self.ledger.missing(requests))):
                sent = submissions.record(part, self.meter)
                await _Collector(self, client, submissions, description).run(sent)

    def _affordable(self, requests: Sequence[Request]) -> list[Request]:
        """Requests within the limit; the others are settled as skipped_budget.

        A recorded batch is possibly paid, so its requests count as spent until results replace reserve by
        bill.
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
    """Collects one submission: creates or adopts its batch, waits, reads the results."""

    transport: BatchTransport
    client: AsyncAnthropic
    submissions: Submissions
    description: str
    looks: int = 1

    def __post_init__(self) -> None:
        self.secret = Secret(api_key(self.transport.settings))
        self.batches = self.client.messages.batches.with_raw_response
        meter, base_url = self.transport.meter, self.transport.settings.base_url
        self.results = BatchResults(self.client, self.submissions, meter, base_url, self.secret)

    async def run(self, sent: SentBatch) -> None:
        for _ in range(MAX_FOREIGN):
            if sent.batch is None:
                sent = self.submissions.created(sent, await self._create(sent))
            batch = await self._wait(sent)
            if batch is None or await self.results.collect(sent, batch):
                # Where the batch is gone, the next round sends the missing requests.
                self.submissions.collected(sent)
                return
            sent = self.submissions.disown(sent)
        raise ValueError(f"{MAX_FOREIGN} batches that the server listed have other requests; check base_url")

    async def _create(self, sent: SentBatch) -> str:
        """Server id of an existing batch, else of a new one."""
        from crossdiff.annotation.api.wire import MAX_ATTEMPTS, Failure, exchange, read_object

        looks = self.looks
        for number in range(MAX_ATTEMPTS):
            adopted = await self._look(sent, looks)
            if adopted is not None:
                return adopted
            requests: Any = [
                {"custom_id": key, "params": body} for key, body in self.submissions.bodies(sent)
            ]
            answer = await exchange(partial(self.batches.create, requests=requests, timeout=CREATE_S))
            if isinstance(answer, bytes):
                name = _batch_id(read_object(answer, self.secret) or {})
                if name is not None:
                    return name
                answer = Failure("its answer cannot be read", attempts=1)
            if answer.fatal is not None:
                raise answer.fatal
            if number + 1 >= answer.attempts:
                break
            looks = LOOKS if answer.paid else 1  # the batch may exist
            await asyncio.sleep(answer.wait or backoff(number))
        raise ValueError(
            f"no batch could be created in {number + 1} attempts ({answer.detail}); run again to continue"
        )

    async def _look(self, sent: SentBatch, times: int) -> str | None:
        """Look for the submission's batch several times, because a server may list a batch late."""
        for number in range(times):
            adopted = await self._adopt(sent)
            if adopted is not None:
                return adopted
            if number + 1 < times:
                await asyncio.sleep(backoff(number))
        return None

    async def _adopt(self, sent: SentBatch) -> str | None:
        """Server id of a batch of this size, newer than the submission and owned by none; else None."""
        known = self.submissions.known_batches()
        page = await patient(partial(self.batches.list, limit=100), self.secret)
        for batch in rows_of(page):
            name, fresh = _batch_id(batch), _created(batch) >= sent.started - CLOCK_SKEW_S
            if name and name not in known and fresh and sum(_counts(batch).values()) == sent.n_requests:
                return name
        return None

    async def _wait(self, sent: SentBatch) -> dict[str, Any] | None:
        """The batch once it has ended; None where the server does not know it."""
        from crossdiff.annotation.api.wire import Failure, exchange, read_object

        total, enabled = sent.n_requests, self.transport.progress
        retrieve = partial(self.batches.retrieve, str(sent.batch))
        with bar(total=total, description=self.description, unit="call", enabled=enabled) as progress:
            while True:
                answer = await exchange(retrieve)
                if isinstance(answer, Failure) and answer.status == 404:
                    return None
                batch = None if isinstance(answer, Failure) else read_object(answer, self.secret)
                batch = batch or await patient(retrieve, self.secret)
                progress.update(max(total - _counts(batch).get("processing", total) - progress.n, 0))
                progress.set_postfix_str(one_line(str(batch.get("processing_status")))[:20])
                if batch.get("processing_status") == "ended":
                    return batch
                if time.time() - sent.started > MAX_BATCH_S:
                    raise ValueError(
                        f"batch {sent.batch} has not ended in {MAX_BATCH_S / 3600:.0f} hours; look at "
                        "it in the provider's console, and run again to continue"
                    )
                await asyncio.sleep(self.transport.settings.poll_s)


def _batch_id(batch: Mapping[str, Any]) -> str | None:
    name = batch.get("id")
    return name if isinstance(name, str) and _BATCH_ID.fullmatch(name) else None


def _counts(batch: Mapping[str, Any]) -> dict[str, int]:
    counts = batch.get("request_counts")
    counts = counts if isinstance(counts, dict) else {}
    return {name: n for name, n in counts.items() if isinstance(n, int) and 0 <= n < 1_000_000}


def _created(batch: Mapping[str, Any]) -> float:
    """Time of creation in seconds; 0 where it cannot be read."""
    try:
        return datetime.fromisoformat(str(batch.get("created_at"))).timestamp()
    except (ValueError, OverflowError):
        return 0.0


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
