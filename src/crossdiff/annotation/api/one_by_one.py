"""Requests sent one by one: bounded concurrency, our own retries, every attempt in the ledger first."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crossdiff.annotation.api.client import backoff, bytes_per_token, check, client_of
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.prices import Meter
from crossdiff.annotation.api.requests import Request
from crossdiff.annotation.api.secret import Secret, api_key
from crossdiff.annotation.settings import AnthropicCompatible, Claude
from crossdiff.io.progress import bar

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

    from crossdiff.annotation.api.wire import Failure

FATAL = frozenset({0, 401, 402, 403, 404})
"""Statuses (0: another origin) that end the run; other refusals end one request."""
GIVE_UP = 20
"""Requests that fail one after the other, with no reply between them, before the rest is not sent."""


@dataclass
class LiveTransport:
    """Fills the ledger with replies; what cannot be had is settled as errored or skipped_budget."""

    settings: Claude | AnthropicCompatible
    ledger: Ledger
    meter: Meter
    progress: bool = True
    checked: set[str] = field(default_factory=set)
    failed_in_a_row: int = 0

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
            if isinstance(self.settings, Claude):
                self.meter.counted_bytes_per_token = await bytes_per_token(client, requests)

    async def _fill(self, requests: Sequence[Request], description: str) -> None:
        async with client_of(self.settings) as client:
            await check(self.settings, client, requests, self.checked)
            slots = asyncio.Semaphore(self.settings.concurrency)
            total, enabled = len(requests), self.progress
            with bar(total=total, description=description, unit="call", enabled=enabled) as progress:

                async def one(request: Request) -> None:
                    await self._answer(client, request, slots)
                    progress.set_postfix_str(f"${self.meter.spent:.3f}", refresh=False)
                    progress.update(1)

                try:
                    async with asyncio.TaskGroup() as group:
                        for request in requests:
                            group.create_task(one(request))
                except BaseExceptionGroup as failures:
                    raise failures.exceptions[0] from None

    async def _answer(self, client: AsyncAnthropic, request: Request, slots: asyncio.Semaphore) -> None:
        """Attempt until answered, as often as the kind of failure is worth; a wait holds no slot."""
        from crossdiff.annotation.api.wire import MAX_ATTEMPTS

        detail = ""
        for number in range(MAX_ATTEMPTS):
            async with slots:
                if self.failed_in_a_row >= GIVE_UP:
                    detail = f"not sent: {GIVE_UP} requests before it failed one after the other"
                    break
                if not self.meter.affords(request):
                    self.ledger.settle(request.key, "skipped_budget", f"limit ${self.meter.max_usd}")
                    return
                failure = await self._attempt(client, request)
            if failure is None:
                self.failed_in_a_row = 0
                return
            detail = failure.detail
            if number + 1 >= failure.attempts:
                break
            await asyncio.sleep(failure.wait or backoff(number))
        self.failed_in_a_row += 1
        self.ledger.settle(request.key, "errored", detail)

    async def _attempt(self, client: AsyncAnthropic, request: Request) -> Failure | None:
        """One request on the wire; a lost answer stays possibly paid, an error status is not paid."""
        from crossdiff.annotation.api.wire import MAX_UNREADABLE, Failure, exchange, read_object

        reserve = self.meter.dearest(request)
        number = self.ledger.begin(request, estimate_usd=reserve)
        self.meter.reserved[number] = reserve
        answer = await exchange(lambda: client.messages.with_raw_response.create(**request.body()))
        del self.meter.reserved[number]
        if isinstance(answer, Failure):
            if answer.paid:
                self.meter.spent += reserve
            else:
                self.ledger.end(number, state="unpaid", cost_usd=0.0, detail=answer.detail)
            if answer.fatal is not None and answer.status in FATAL:
                raise answer.fatal
            return answer
        secret = Secret(api_key(self.settings))
        self.ledger.arrived(number, secret.clean(answer.decode("utf-8", "replace")))
        message = read_object(answer, secret)
        if message is None or not isinstance(message.get("content"), list):
            self.meter.spent += reserve
            return Failure("the answer is no message (a gateway's page?)", attempts=MAX_UNREADABLE)
        cost = self.meter.billed(request.model, message, reserve=reserve)
        self.meter.spent += cost
        self.ledger.store(number, request.key, message, cost_usd=cost)
        return None
