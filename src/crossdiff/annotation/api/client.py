"""The Anthropic client: built from explicit key and address, checked before money is spent."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from crossdiff.annotation.api.requests import Request
from crossdiff.annotation.settings import AnthropicCompatible, Claude

if TYPE_CHECKING:
    from anthropic import APIStatusError, AsyncAnthropic

Answer = TypeVar("Answer")
KEY_VARIABLE = "ANTHROPIC_API_KEY"
MAX_ATTEMPTS = 8
MAX_RETRY_AFTER_S = 60.0
"""Cap on a server's `retry-after`, which may ask for an hour."""
FIRST_WAIT_S = 0.5
RETRIED = frozenset({408, 409, 429})
N_COUNTED = 3
"""Prompts whose tokens are counted exactly for the estimate."""


def api_key(settings: Claude | AnthropicCompatible) -> str:
    """The key from the environment, and from nowhere else; it is never written anywhere."""
    if isinstance(settings, AnthropicCompatible):
        return os.environ.get(settings.api_key_env) or "none"
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        raise ValueError(
            f"this annotator needs an API key and {KEY_VARIABLE} is not set; export it, or use "
            "annotator=lexical, which needs none"
        )
    return key


def client_of(settings: Claude | AnthropicCompatible) -> AsyncAnthropic:
    """A client that never retries by itself: every attempt has to be in the ledger first."""
    from anthropic import AsyncAnthropic

    return AsyncAnthropic(
        api_key=api_key(settings),
        base_url=settings.base_url,
        max_retries=0,
        timeout=settings.timeout_s,
    )


async def preflight(client: AsyncAnthropic, models: Sequence[str]) -> None:
    """Refuse an invalid key, and models that are unknown or retired, before the first paid request."""
    page = await patient(lambda: client.models.list(limit=1000))
    listed = {model.id: model for model in page.data}
    for name in models:
        found = listed.get(name)
        if found is None or found.lifecycle == "retired":
            what = "unknown to the API" if found is None else "retired"
            active = sorted(model for model, info in listed.items() if info.lifecycle == "active")
            raise ValueError(
                f"model {name!r} is {what}; set annotator.model (or fallback) to one of {active}"
            )


async def check(
    settings: Claude | AnthropicCompatible,
    client: AsyncAnthropic,
    requests: Sequence[Request],
    known: set[str],
) -> None:
    """Preflight of the models that are not yet in `known`, which is updated; other servers list none."""
    models = sorted({request.model for request in requests} - known)
    if models and isinstance(settings, Claude):
        await preflight(client, models)
    known.update(models)


async def bytes_per_token(client: AsyncAnthropic, requests: Sequence[Request]) -> float | None:
    """From exact token counts of the first few prompts (a free call); None without prompts."""
    n_bytes = tokens = 0
    for request in requests[:N_COUNTED]:
        messages: Any = [{"role": role, "content": content} for role, content in request.messages]
        count = partial(client.messages.count_tokens, system=request.system, messages=messages)
        counted = await patient(partial(count, model=request.model))
        n_bytes += request.n_bytes
        tokens += counted.input_tokens
    return n_bytes / tokens if tokens else None


async def patient(call: Callable[[], Awaitable[Answer]]) -> Answer:
    """A free call (list, retrieve, count), tried again on lost connections and server errors."""
    import anthropic

    for number in range(MAX_ATTEMPTS):
        try:
            return await call()
        except anthropic.APIStatusError as error:
            wait = wait_after(error)
            if wait < 0:
                raise refusal(error) from None
        except anthropic.APIConnectionError:
            wait = 0.0
        await asyncio.sleep(wait or backoff(number))
    raise ValueError(
        f"the server did not answer {MAX_ATTEMPTS} times; run again to go on: what was answered is kept in "
        "the ledger"
    )


def refusal(error: APIStatusError) -> ValueError:
    """The message for a status that no repetition can mend."""
    if error.status_code in (401, 403):
        return ValueError(
            f"the server refused the key (HTTP {error.status_code}); set {KEY_VARIABLE} (for a compatible "
            "server the variable that annotator.api_key_env names) to a valid one, or use annotator=lexical, "
            "which needs none"
        )
    return ValueError(
        f"the server refused the request (HTTP {error.status_code}: {error.api_message}); check credit, "
        "model and base_url, or use annotator=lexical, which needs none of them"
    )


def wait_after(error: APIStatusError) -> float:
    """Seconds to wait after an error status: the server's wish up to a cap, 0 our own choice, -1 never."""
    if error.status_code not in RETRIED and error.status_code < 500:
        return -1.0
    header = error.response.headers.get("retry-after")
    try:
        return min(max(float(header or 0), 0.0), MAX_RETRY_AFTER_S)
    except ValueError:
        return 0.0


def backoff(number: int) -> float:
    """Seconds before the attempt after attempt `number`, where the server says nothing."""
    return FIRST_WAIT_S * 2 ** min(number, 5)
