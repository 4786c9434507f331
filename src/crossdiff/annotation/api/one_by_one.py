"""Requests sent one by one: bounded concurrency, our own retries, every attempt in the ledger first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.api.client import (
    MAX_ATTEMPTS,
    backoff,
    bytes_per_token,
    check,
    client_of,
    refusal,
    wait_after,
)
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.prices import Meter
from crossdiff.annotation.api.requests import Request
from crossdiff.annotation.settings import AnthropicCompatible, Claude
from crossdiff.io.progress import bar

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic


@dataclass(frozen=True)
class _Attempt:
    """What came of one attempt: answered, given up, or to be tried after `wait` seconds (None: ours)."""

    answered: bool = False
    given_up: bool = False
    wait: float | None = None
    detail: str = ""


@dataclass
class LiveTransport:
    """Fills the ledger with replies; what cannot be had is settled as errored or skipped_budget."""

    settings: Claude | AnthropicCompatible
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
        """Attempt until answered; a wait holds no slot."""
        attempt = _Attempt()
        for number in range(MAX_ATTEMPTS):
            async with slots:
                if not self.meter.affords(request):
                    self.ledger.settle(request.key, "skipped_budget", f"limit ${self.meter.max_usd}")
                    return
                attempt = await self._attempt(client, request)
            if attempt.answered:
                return
            if attempt.given_up:
                break
            await asyncio.sleep(attempt.wait or backoff(number))
        self.ledger.settle(request.key, "errored", attempt.detail)

    async def _attempt(self, client: AsyncAnthropic, request: Request) -> _Attempt:
        """One request on the wire; a lost answer stays possibly paid, an error status is not paid."""
        import anthropic
        import httpx2

        estimate = self.meter.dearest(request)
        number = self.ledger.begin(request, estimate_usd=estimate)
        self.meter.reserved[number] = estimate
        try:
            raw = await client.messages.with_raw_response.create(**request.body())
            message = _message(raw.http_response.text)
        except anthropic.APIStatusError as error:
            del self.meter.reserved[number]
            self.ledger.end(number, state="unpaid", cost_usd=0.0, detail=f"HTTP {error.status_code}")
            return _after_status(error)
        except (anthropic.APIConnectionError, httpx2.HTTPError, json.JSONDecodeError) as error:
            self.meter.spent += self.meter.reserved.pop(number)
            return _Attempt(detail=f"{type(error).__name__}: the answer was lost")
        cost = self.meter.billed(request.model, message)
        del self.meter.reserved[number]
        self.meter.spent += cost
        self.ledger.store(number, request.key, message, cost_usd=cost)
        return _Attempt(answered=True)


def _message(text: str) -> dict[str, Any]:
    """The raw message of a 200; a body that is none (a gateway's page) counts as a lost answer."""
    message = json.loads(text)
    if not isinstance(message, dict) or not isinstance(message.get("content"), list):
        raise json.JSONDecodeError("no message", text[:80], 0)
    return message


def _after_status(error: APIStatusError) -> _Attempt:
    detail = f"HTTP {error.status_code}: {error.api_message}"
    if error.status_code in (401, 402, 403, 404):
        raise refusal(error) from None
    wait = wait_after(error)
    return _Attempt(given_up=wait < 0, wait=wait, detail=detail)
