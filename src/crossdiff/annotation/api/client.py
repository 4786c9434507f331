"""The Anthropic client: built from explicit key and address, checked before money is spent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.api.requests import Request
from crossdiff.annotation.api.secret import Secret, api_key
from crossdiff.annotation.schema import one_line
from crossdiff.annotation.settings import AnthropicCompatible, Claude

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

FIRST_WAIT_S = 0.5
N_COUNTED = 3
"""Prompts whose tokens are counted exactly for the estimate."""
MAX_LISTED = 20


def client_of(settings: Claude | AnthropicCompatible) -> AsyncAnthropic:
    """A client that never retries by itself: every attempt has to be in the ledger first."""
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
    """Refuse an invalid key, and models that are unknown or retired, before the first paid request."""
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
    """Preflight of the models that are not yet in `known`, which is updated; other servers list none."""
    models = sorted({request.model for request in requests} - known)
    if models and isinstance(settings, Claude):
        await preflight(client, models, Secret(api_key(settings)))
    known.update(models)


async def bytes_per_token(client: AsyncAnthropic, requests: Sequence[Request]) -> float | None:
    """From exact token counts of the first few prompts (a free call); None where none was counted."""
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
    """The JSON object that answers a free call (list, retrieve, count), tried again on what may pass."""
    from crossdiff.annotation.api.wire import read_object

    return await patiently(call, lambda body: read_object(body, secret))


async def patiently(call: Callable[[], Awaitable[Any]], read: Callable[[bytes], Any]) -> Any:
    """What `read` makes of the answer to a free call; ValueError when it stays away or unreadable."""
    from crossdiff.annotation.api.wire import MAX_ATTEMPTS, MAX_UNREADABLE, Failure, exchange

    for number in range(MAX_ATTEMPTS):
        answer = await exchange(call)
        if isinstance(answer, bytes):
            found = read(answer)
            if found is not None:
                return found
            answer = Failure("its answer cannot be read", attempts=MAX_UNREADABLE)
        if answer.fatal is not None:
            raise answer.fatal
        if number + 1 >= answer.attempts:
            break
        await asyncio.sleep(answer.wait or backoff(number))
    raise ValueError(
        f"the server did not answer {number + 1} times ({answer.detail}); run again to go on: what was "
        "answered is kept in the ledger"
    )


def backoff(number: int) -> float:
    """Seconds before the attempt after attempt `number`, where the server says nothing."""
    return FIRST_WAIT_S * 2 ** min(number, 5)
