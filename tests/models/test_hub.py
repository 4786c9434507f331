"""An unreachable hub is one message, at once."""

from __future__ import annotations

import errno
import socket
from typing import Any

import huggingface_hub.constants as constants
import huggingface_hub.errors as hub_errors
import pytest
import requests

from crossdiff.models import hub


def asking() -> None:
    with hub.hub("x", way_out="pass a folder"):
        raise ConnectionError(f"offline is {constants.HF_HUB_OFFLINE}")


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match=r"x cannot be .*ConnectionError: offline is True; pass a folder"):
        asking()
    assert not constants.HF_HUB_OFFLINE


def test_a_closed_port_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(hub, "getproxies", dict)
    hub.hub_answers.cache_clear()
    assert not hub.hub_answers()
    hub.hub_answers.cache_clear()


def test_a_full_disk_is_no_message_about_the_hub() -> None:
    with pytest.raises(OSError, match="No space left"), hub.hub("x", way_out="y", remote=False):
        raise OSError(28, "No space left on device")


def answered(status: int) -> Exception:
    """What the hub's client raises for an answer of that status."""
    error = hub_errors.HfHubHTTPError.__new__(hub_errors.HfHubHTTPError)
    error.response = type("Response", (), {"status_code": status})()  # type: ignore[attr-defined]
    return error


def transport_error() -> Exception:
    """A connection that broke, in the words of the library under the hub's client."""
    import sys

    client = next(kind for kind in hub_errors.HfHubHTTPError.__mro__ if kind.__name__ == "HTTPError")
    return sys.modules[client.__module__.partition(".")[0]].ConnectError("broken")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionError("Server Disconnected"), True),
        (TimeoutError(), True),
        (transport_error(), True),
        (requests.exceptions.ChunkedEncodingError(), True),
        (socket.gaierror(socket.EAI_AGAIN, "name resolution"), True),
        (OSError(errno.ENETUNREACH, "Network is unreachable"), True),
        (hub_errors.LocalEntryNotFoundError("not in the cache"), True),
        (answered(503), True),
        (answered(429), True),
        (answered(401), False),
        (answered(404), False),
        (hub_errors.OfflineModeIsEnabled("offline"), False),
        (FileNotFoundError("no such dataset"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (OSError("Unexpected end of stream: page was smaller than expected"), False),
        (ValueError("no column"), False),
    ],
    ids=repr,
)
def test_an_outage_is_told_from_what_waiting_does_not_mend(error: Exception, expected: bool) -> None:
    assert hub.is_outage(error) is expected


@pytest.mark.parametrize(
    "error", [transport_error(), OSError(errno.EHOSTUNREACH, "No route to host")], ids=repr
)
def test_a_broken_connection_of_any_kind_is_one_message(error: Any) -> None:
    with pytest.raises(ValueError, match="x cannot be reached"), hub.hub("x", way_out="y", remote=False):
        raise error
