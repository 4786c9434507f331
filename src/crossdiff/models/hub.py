"""Access to the Hugging Face hub, with one message within seconds where it cannot be reached."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from functools import cache
from urllib.parse import urlparse
from urllib.request import getproxies

WAY_OUT = "pass a folder saved with save_pretrained instead of a hub id (and check the name and your access)"
_PROBE_S = 5.0
_NETWORK_ERRNO = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENONET)


@contextmanager
def hub(what: str, *, way_out: str, remote: bool = True) -> Iterator[None]:
    """Access the hub (or its cache, or a folder); ValueError with `way_out` where `what` cannot be read.

    Where the hub does not accept a connection, its clients are set to offline mode: they then
    use the cache, or fail at once instead of retrying for minutes.
    """
    from huggingface_hub.errors import HFValidationError

    try:
        with _offline_if_unreachable() if remote else nullcontext():
            yield
    except (HFValidationError, *_network_errors()) as error:
        raise _message(what, way_out, error) from error
    except OSError as error:
        if error.errno is not None and not is_outage(error):
            raise
        raise _message(what, way_out, error) from error


def is_outage(error: BaseException) -> bool:
    """Whether the network or the server failed, so that waiting may help;

    not so for an unknown name, a missing login or a damaged file.
    """
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return False
    status = getattr(getattr(error, "response", None), "status_code", getattr(error, "status", None))
    if isinstance(status, int):
        return status >= 500 or status in (408, 429)
    if isinstance(error, (*_network_errors(), LocalEntryNotFoundError, socket.gaierror)):
        return True
    return isinstance(error, OSError) and error.errno in _NETWORK_ERRNO


def _network_errors() -> tuple[type[Exception], ...]:
    """Exceptions of the loaded HTTP clients, of which the hub's client has used several."""
    bases = {
        "httpx": "HTTPError",
        "httpx2": "HTTPError",
        "aiohttp": "ClientError",
        "requests": "RequestException",
    }
    loaded = [getattr(sys.modules[name], base) for name, base in bases.items() if name in sys.modules]
    return (ConnectionError, TimeoutError, *loaded)


@cache
def hub_answers() -> bool:
    """Whether the hub accepts a connection; assumed behind a proxy."""
    from huggingface_hub import constants

    endpoint = urlparse(constants.ENDPOINT)
    if "https" in getproxies() or "all" in getproxies():
        return True
    port = endpoint.port or (443 if endpoint.scheme == "https" else 80)
    try:
        socket.create_connection((endpoint.hostname or "", port), timeout=_PROBE_S).close()
    except OSError:
        return False
    return True


@contextmanager
def _offline_if_unreachable() -> Iterator[None]:
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or hub_answers():
        yield
        return
    switched = [constants, *([sys.modules["datasets.config"]] if "datasets.config" in sys.modules else [])]
    for module in switched:
        module.HF_HUB_OFFLINE = True  # type: ignore[attr-defined]
    try:
        yield
    finally:
        for module in switched:
            module.HF_HUB_OFFLINE = False  # type: ignore[attr-defined]


def _message(what: str, way_out: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:300]
    offline = " (offline mode)" if os.environ.get("HF_HUB_OFFLINE") else ""
    return ValueError(
        f"{what} cannot be reached or read{offline}: {type(error).__name__}: {reason}; {way_out}"
    )
