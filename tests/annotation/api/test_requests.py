"""Prices, estimates and the meter by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.annotation.api.requests import Meter, Prices, Request

PRICES = Prices("2026-01-01", {"m": (1.0, 5.0)}, 0.5)
ASKED = Request("describe", "anthropic", "m", "s" * 100, (("user", "é" * 200),), {}, None, 1000, 0, "e")


def test_the_dearest_outcome_by_hand() -> None:
    """500 bytes at 2.5 per token are 200 tokens; 200 * 1e-6 + 1000 * 5e-6."""
    assert ASKED.n_bytes == 500
    assert Meter(PRICES, 1.0).dearest(ASKED) == pytest.approx(0.0052)
    assert Meter(PRICES, 1.0, batch=True).dearest(ASKED) == pytest.approx(0.0026)


def test_the_expected_cost_uses_counted_tokens() -> None:
    """500 bytes at 5 per token are 100 tokens, and 250 tokens out."""
    meter = Meter(PRICES, 1.0, counted_bytes_per_token=5.0)
    assert meter.expected([ASKED, ASKED]) == pytest.approx(2 * (100e-6 + 250 * 5e-6))


def test_the_bill_counts_caches() -> None:
    usage = {"input_tokens": 100, "output_tokens": 10, "cache_creation_input_tokens": 40}
    message = {"usage": usage | {"cache_read_input_tokens": 100}}
    cost = (100 + 50 + 10) * 1e-6 + 10 * 5e-6
    assert Meter(PRICES, 1.0).billed("m", message, reserve=1.0) == pytest.approx(cost)
    assert Meter(PRICES, 1.0).billed("m", message, reserve=cost / 2) == cost / 2
    assert Meter(None, 0.0).billed("m", message, reserve=0.0) == 0.0


def test_the_meter_refuses_what_could_pass_the_limit() -> None:
    meter = Meter(PRICES, 0.012)
    assert meter.affords(ASKED)
    meter.reserved[1] = meter.dearest(ASKED)
    assert meter.affords(ASKED)
    meter.spent = 0.0017
    assert not meter.affords(ASKED)
    assert Meter(None, 0.0).affords(ASKED)


def test_a_price_file_is_read_or_refused_with_its_form(tmp_path: Path) -> None:
    assert Prices.load().rate("claude-haiku-5-5") == (1e-6, 5e-6)
    with pytest.raises(ValueError, match="does not exist"):
        Prices.load(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("models: {m: {input: 1}}", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks"):
        Prices.load(tmp_path / "bad.yaml")
    (tmp_path / "worse.yaml").write_text("just text", encoding="utf-8")
    with pytest.raises(ValueError, match="lacks"):
        Prices.load(tmp_path / "worse.yaml")
