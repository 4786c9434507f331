"""Turning an unreachable hub into one clear message, quickly."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_TIMEOUT_S = "10"


@contextmanager
def hub(what: str, *, way_out: str) -> Iterator[None]:
    """Run a hub or folder access; a failure to reach or read `what` becomes a ValueError with `way_out`."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", _TIMEOUT_S)
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", _TIMEOUT_S)
    import httpx
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
    )

    unreachable = (
        HfHubHTTPError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        HFValidationError,
        httpx.HTTPError,
        ConnectionError,
        TimeoutError,
    )
    try:
        yield
    except unreachable as error:
        raise _message(what, way_out, error) from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise _message(what, way_out, error) from error


def _message(what: str, way_out: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split())[:300]
    return ValueError(f"{what} cannot be reached or read ({type(error).__name__}: {reason}); {way_out}")
