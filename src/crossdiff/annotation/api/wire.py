"""Reading a server's bytes: from one origin, within limits of time and size, with our key removed.

A server is hostile input. Redirects are not followed; time and size of a body are limited (the size after
decompression); an error's text is made short, printable and JSON before the SDK parses it.
"""

from __future__ import annotations

import asyncio
import json
import zlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx2
from anthropic import (
    AnthropicError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    DefaultAsyncHttpxClient,
)

from crossdiff.annotation.api.secret import Secret
from crossdiff.annotation.schema import one_line

MAX_REPLY_BYTES = 4_000_000
MAX_RESULTS_BYTES = 256_000_000
"""For the results of a batch of at most 10,000 requests."""
MAX_ERROR_TEXT = 300
MAX_ATTEMPTS = 8
MAX_SLOW, MAX_UNREADABLE = 2, 3
"""Most attempts where the answer takes too long, or is no message; each may be paid."""
MAX_RETRY_AFTER_S = 60.0
"""Longest wait that a server's `retry-after` can ask for."""
RETRIED = frozenset({408, 409, 429})
_GUNZIP_OR_INFLATE = 47
"""zlib's `wbits` for either header."""


class ForeignOrigin(AnthropicError, ValueError):
    """The key would go to a host other than that of base_url."""


class TooLarge(AnthropicError):
    """A body beyond its limit."""


def origin(url: str) -> str:
    """Scheme, host and port: what may see the key."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return f"{parts.scheme}://{parts.hostname}:{port}"


class BoundedClient(DefaultAsyncHttpxClient):
    """An HTTP client for one origin; a request's timeout is for the whole exchange."""

    def __init__(self, base_url: str, secret: Secret) -> None:
        super().__init__(follow_redirects=False, headers={"accept-encoding": "gzip"})
        self.origin, self.secret = origin(base_url), secret

    async def send(self, request: httpx2.Request, **options: Any) -> httpx2.Response:
        """The whole response; raises ForeignOrigin, TooLarge or ReadTimeout."""
        asked = origin(str(request.url))
        if asked != self.origin:
            raise ForeignOrigin(foreign(self.origin, asked))
        limit = MAX_RESULTS_BYTES if request.url.path.endswith("/results") else MAX_REPLY_BYTES
        seconds = request.extensions.get("timeout", {}).get("read")
        try:
            async with asyncio.timeout(seconds):
                kept: dict[str, Any] = {"auth": options["auth"]} if "auth" in options else {}
                response = await super().send(request, stream=True, follow_redirects=False, **kept)
                try:
                    body = await _bounded(response, limit)
                finally:
                    await response.aclose()
        except TimeoutError:
            raise httpx2.ReadTimeout(f"no whole answer in {seconds} s", request=request) from None
        if response.has_redirect_location:
            target = str(request.url.join(response.headers["location"]))
            raise ForeignOrigin(foreign(self.origin, origin(self.secret.clean(target))))
        headers = {"content-type": "application/json"}
        if response.is_error:
            body = _error_body(body, self.secret)
            headers |= {"retry-after": response.headers.get("retry-after", "0")}
        return httpx2.Response(response.status_code, headers=headers, content=body, request=request)


def foreign(expected: str, other: str) -> str:
    """The message for a server that points elsewhere."""
    return (
        f"the server at {expected} points to another address, {other[:200]!r}; the key goes to "
        "annotator.base_url only: give that address if you trust it"
    )


async def _bounded(response: httpx2.Response, limit: int) -> bytes:
    compressed = response.headers.get("content-encoding", "identity") in ("gzip", "deflate")
    unpack = zlib.decompressobj(_GUNZIP_OR_INFLATE) if compressed else None
    body = bytearray()
    async for chunk in response.aiter_raw():
        try:
            body += unpack.decompress(chunk, limit + 1 - len(body)) if unpack else chunk
        except zlib.error:
            raise httpx2.DecodingError("the body is not what its encoding says") from None
        if len(body) > limit:
            raise TooLarge(f"the answer is larger than {limit / 1e6:g} MB")
    return bytes(body)


def _error_body(body: bytes, secret: Secret) -> bytes:
    """The server's error in the form that the SDK reads."""
    content = read_object(body, secret) or {}
    error = content.get("error")
    given = error.get("message") if isinstance(error, dict) else error or content.get("message")
    text = given if isinstance(given, str) else secret.clean(body.decode("utf-8", "replace"))
    message = one_line(text)[:MAX_ERROR_TEXT]
    return json.dumps({"type": "error", "error": {"type": "api_error", "message": message}}).encode()


@dataclass(frozen=True)
class Failure:
    """Why an exchange failed, and how often to try: `attempts` in all, `wait` seconds apart (0: `backoff`).

    `paid`: the server may charge for it. `fatal`: the user's message where repeating cannot help.
    """

    detail: str
    attempts: int = MAX_ATTEMPTS
    wait: float = 0.0
    paid: bool = True
    status: int = 0
    fatal: ValueError | None = None


async def exchange(call: Callable[[], Awaitable[Any]]) -> bytes | Failure:
    """The body of one raw call of the SDK, or a Failure; no reply raises."""
    try:
        answer = await call()
        return getattr(answer, "http_response", answer).content
    except APIStatusError as error:
        return _failed_status(error)
    except ForeignOrigin as error:
        return Failure("another origin", attempts=1, paid=False, fatal=error)
    except TooLarge as error:
        return Failure(str(error), attempts=1)
    except APITimeoutError:
        return Failure("no whole answer within the time limit", attempts=MAX_SLOW)
    except (APIConnectionError, httpx2.HTTPError) as error:
        return Failure(f"{type(error.__cause__ or error).__name__}: the answer was lost")


def _failed_status(error: APIStatusError) -> Failure:
    status, message = error.status_code, error.api_message or "no message"
    detail = f"HTTP {status}: {message}"
    if status in RETRIED or status >= 500:
        return Failure(detail, wait=_retry_after(error), paid=False, status=status)
    if status in (401, 403):
        text = (
            f"the server refused the key (HTTP {status}); set ANTHROPIC_API_KEY (for a compatible server the "
            "variable that annotator.api_key_env names) to a valid one, or use annotator=lexical"
        )
    else:
        text = (
            f"the server refused the request (HTTP {status}: {message}); check credit, model and base_url, "
            "or use annotator=lexical, which needs none of them"
        )
    return Failure(detail, attempts=1, paid=False, status=status, fatal=ValueError(text))


def _retry_after(error: APIStatusError) -> float:
    """Seconds that the server asks for, capped; 0 where unreadable."""
    try:
        wished = float(error.response.headers.get("retry-after") or 0)
    except ValueError:
        return 0.0
    return min(wished, MAX_RETRY_AFTER_S) if wished > 0 else 0.0  # a NaN is not above 0


MAX_DEPTH = 50


def read_object(body: bytes, secret: Secret) -> dict[str, Any] | None:
    """The JSON object in a body, without the key and with null for NaN and infinities; None without one."""
    try:
        content = json.loads(body.decode("utf-8", "replace"), parse_constant=_null, parse_float=_finite)
    except (ValueError, RecursionError):  # ValueError also for an integer with too many digits
        return None
    return secret.cleaned(content) if isinstance(content, dict) and _is_shallow(content) else None


def _null(name: str) -> None:
    """NaN and the infinities are no JSON."""


def _finite(text: str) -> float | None:
    value = float(text)
    return value if abs(value) < float("inf") else None


def _is_shallow(value: Any) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for item in level
            for child in (item.values() if isinstance(item, dict) else item if isinstance(item, list) else ())
        ]
    return not level
