"""Key, model and server are checked before anything is paid; the key is in no message."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from crossdiff.annotation.api import client
from crossdiff.annotation.api.secret import Secret, api_key
from tests.annotation.campaign import annotate, settings
from tests.messages_replies import Faults
from tests.messages_server import KEY, MessagesServer


def test_without_a_key_the_variable_and_the_way_out_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ANTHROPIC_API_KEY is not set.*annotator=lexical"):
        annotate("claude", "http://127.0.0.1:9", tmp_path, 1)


def test_an_invalid_key_is_refused_and_never_shown(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-wrong-key")
    with (
        MessagesServer() as server,
        pytest.raises(ValueError, match=r"refused the key \(HTTP 401\); set ANTHROPIC_API_KEY") as caught,
    ):
        annotate("claude", server.address, tmp_path, 1)
    assert "sk-wrong" not in str(caught.value)
    assert not server.arrived


@pytest.mark.parametrize(
    ("model", "what"), [("claude-3-opus", "retired"), ("claude-9", "unknown to the API")]
)
def test_a_retired_or_unknown_model_lists_the_active_ones(tmp_path: Path, monkeypatch, model, what) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    prices = tmp_path / "prices.yaml"
    prices.write_text(f"as_of: 2026-01-01\nmodels:\n  {model}: {{input: 1, output: 1}}\n", encoding="utf-8")
    with (
        MessagesServer() as server,
        pytest.raises(ValueError, match=f"{what}; set annotator.model") as caught,
    ):
        annotate("claude", server.address, tmp_path, 1, model=model, prices=prices)
    assert "claude-haiku-5-5" in str(caught.value)
    assert not server.arrived


def test_a_model_without_a_price_is_refused_before_the_network(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    with pytest.raises(ValueError, match="no price is known for model 'claude-3-opus'"):
        annotate("claude", "http://127.0.0.1:9", tmp_path, 1, model="claude-3-opus")


def test_a_server_that_is_not_there_is_one_message(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    monkeypatch.setattr(client, "FIRST_WAIT_S", 0.001)
    with pytest.raises(ValueError, match="did not answer 8 times"):
        annotate("claude", "http://127.0.0.1:9", tmp_path, 1)


def test_a_compatible_server_has_a_key_variable_of_its_own(monkeypatch) -> None:
    asked = settings("compatible", "http://127.0.0.1:9")
    assert api_key(asked) == "none"
    monkeypatch.setenv("TEST_KEY", "own")
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert api_key(asked) == "own"


def test_the_sdk_never_retries_by_itself(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
    assert client.client_of(settings("claude", "http://127.0.0.1:9")).max_retries == 0
    with MessagesServer(Faults()) as server:
        made = client.client_of(settings("claude", server.address))
        asyncio.run(client.preflight(made, ["claude-haiku-5-5"], Secret(KEY)))
    assert server.calls["GET /v1/models"] == 1
