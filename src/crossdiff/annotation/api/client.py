"""The client of a server: checks key and models, then sends requests, `concurrency` at a time.

Retries are our own, and every attempt is in the ledger before it is sent.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.requests import Meter, Request
from crossdiff.annotation.api.secret import Secret, api_key
from crossdiff.annotation.schema import one_line
from crossdiff.annotation.settings import AnthropicCompatible, Claude
from crossdiff.io.progress import bar

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

    from crossdiff.annotation.api.wire import Failure

Server = TypeVar("Server", bound=Claude | AnthropicCompatible)
FIRST_WAIT_S = 0.5
N_COUNTED = 3
"""Prompts whose tokens the server counts for the estimate."""
MAX_LISTED = 20
FATAL = frozenset({0, 401, 402, 403, 404})
"""Statuses (0: another origin) that end the run; other refusals end one request."""
GIVE_UP = 20
"""Requests that fail in a row before the others are not sent."""


def client_of(settings: Claude | AnthropicCompatible) -> AsyncAnthropic:
    """A client without retries, because every attempt has to be in the ledger first."""
    from anthropic import AsyncAnthropic

    from crossdiff.annotation.api.wire import BoundedClient

    key, address = api_key(settings), settings.base_url
    return AsyncAnthropic(
        api_key=key,
        base_url=address,
        max_retries=0,
        timeout=settings.timeout_s,
        http_client=BoundedClient(address, Secret(key)),
    )


async def preflight(client: AsyncAnthropic, models: Sequence[str], secret: Secret) -> None:
    """ValueError for an invalid key, or a model that is unknown or retired; costs nothing."""
    page = await patient(partial(client.models.with_raw_response.list, limit=1000), secret)
    listed = {str(row.get("id")): row.get("lifecycle") for row in rows_of(page)}
    for name in models:
        if name not in listed or listed[name] == "retired":
            what = "retired" if name in listed else "unknown to the API"
            active = sorted(one_line(model)[:60] for model, state in listed.items() if state == "active")
            raise ValueError(
                f"model {name!r} is {what}; set annotator.model (or fallback) to one of {active[:MAX_LISTED]}"
            )


def rows_of(page: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The objects of a listing."""
    rows = page.get("data")
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


async def check(
    settings: Claude | AnthropicCompatible,
    client: AsyncAnthropic,
    requests: Sequence[Request],
    known: set[str],
) -> None:
    """Preflight of Claude models outside `known`, which is updated; other servers list no models."""
    models = sorted({request.model for request in requests} - known)
    if models and isinstance(settings, Claude):
        await preflight(client, models, Secret(api_key(settings)))
    known.update(models)


async def bytes_per_token(client: AsyncAnthropic, requests: Sequence[Request]) -> float | None:
    """Bytes per token of the first few prompts, by a free call; None where the server counted none."""
    n_bytes = tokens = 0
    for request in requests[:N_COUNTED]:
        messages: Any = [{"role": role, "content": content} for role, content in request.messages]
        count = partial(client.messages.with_raw_response.count_tokens, system=request.system)
        counted = await patient(partial(count, messages=messages, model=request.model), Secret(""))
        n_tokens = counted.get("input_tokens")
        if isinstance(n_tokens, int) and 0 < n_tokens <= request.n_bytes:
            n_bytes += request.n_bytes
            tokens += n_tokens
    return n_bytes / tokens if tokens else None


async def patient(call: Callable[[], Awaitable[Any]], secret: Secret) -> dict[str, Any]:
    """The JSON object that answers a free call (list, retrieve, count), with retries."""
    from crossdiff.annotation.api.wire import read_object

    return await patiently(call, lambda body: read_object(body, secret))


async def patiently(call: Callable[[], Awaitable[Any]], read: Callable[[bytes], Any]) -> Any:
    """`read` of the answer to a free call, with retries; ValueError without a readable answer."""
    from crossdiff.annotation.api.wire import MAX_ATTEMPTS, MAX_UNREADABLE, Failure, exchange

    for number in range(MAX_ATTEMPTS):
        answer = await exchange(call)
        if isinstance(answer, bytes):
            content = read(answer)
            if content is not None:
                return content
            answer = Failure("its answer cannot be read", attempts=MAX_UNREADABLE)
        if answer.fatal is not None:
            raise answer.fatal
        if number + 1 >= answer.attempts:
            break
        await asyncio.sleep(answer.wait or backoff(number))
    raise ValueError(
        f"the server did not answer {number + 1} times ({answer.detail}); run again to continue: answers are "
        "kept in the ledger"
    )


def backoff(number: int) -> float:
    """Seconds to wait after attempt `number`, where the server asks for nothing."""
    return FIRST_WAIT_S * 2 ** min(number, 5)


@dataclass
class ServerTransport(Generic[Server]):
    """Fills the ledger from a server; requests without a reply are settled as errored or skipped_budget."""

    settings: Server
    ledger: Ledger
    meter: Meter
    progress: bool = True
    checked: set[str] = field(default_factory=set)

    def prepare(self, requests: Sequence[Request]) -> None:
        """Check key and models, and count the tokens of a few prompts; costs nothing."""
        asyncio.run(self._prepare(requests))

    def fill(self, requests: Sequence[Request], *, description: str) -> None:
        """Return when every request has a reply or an outcome in the ledger."""
        missing = self.ledger.missing(requests)
        if missing:
            asyncio.run(self._fill(missing, description))

    async def _prepare(self, requests: Sequence[Request]) -> None:
        async with client_of(self.settings) as client:
            await check(self.settings, client, requests, self.checked)
            if isinstance(self.settings, Claude):
                self.meter.counted_bytes_per_token = await bytes_per_token(client, requests)

    async def _fill(self, missing: Sequence[Request], description: str) -> None:
        async with client_of(self.settings) as client:
            await check(self.settings, client, missing, self.checked)
            await self.send(client, missing, description)

    @abstractmethod
    async def send(self, client: AsyncAnthropic, requests: Sequence[Request], description: str) -> None:
        """Put replies or outcomes of these requests into the ledger."""


@dataclass
class LiveTransport(ServerTransport[Claude | AnthropicCompatible]):
    """Sends single requests, `concurrency` at a time."""

    failed_in_a_row: int = 0

    async def send(self, client: AsyncAnthropic, requests: Sequence[Request], description: str) -> None:
        """Send every request until it is answered or given up."""
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
        """Attempt until answered, or as often as the failure allows; waiting needs no slot."""
        from crossdiff.annotation.api.wire import MAX_ATTEMPTS

        detail = ""
        for number in range(MAX_ATTEMPTS):
            async with slots:
                if self.failed_in_a_row >= GIVE_UP:
                    detail = f"not sent: {GIVE_UP} requests before it failed in a row"
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
        """One attempt; None after a reply. A lost answer stays possibly paid, an error status is unpaid."""
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
