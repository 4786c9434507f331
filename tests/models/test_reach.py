"""An unreachable hub is one message, at once."""

from __future__ import annotations

import huggingface_hub.constants as constants
import pytest

from crossdiff.models import reach


def asking() -> None:
    with reach.hub("x", way_out="pass a folder"):
        raise ConnectionError(f"offline is {constants.HF_HUB_OFFLINE}")


def test_a_hub_that_does_not_answer_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "hub_answers", lambda: False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ValueError, match=r"x cannot be .*ConnectionError: offline is True; pass a folder"):
        asking()
    assert not constants.HF_HUB_OFFLINE


def test_a_closed_port_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(reach, "getproxies", dict)
    reach.hub_answers.cache_clear()
    assert not reach.hub_answers()
    reach.hub_answers.cache_clear()


def test_a_full_disk_is_no_message_about_the_hub() -> None:
    with pytest.raises(OSError, match="No space left"), reach.hub("x", way_out="y", remote=False):
        raise OSError(28, "No space left on device")
