from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from crossdiff.report.example_line import LENGTH, around, example_line


def document(tokens: list[str], codes: list[float], kinds: list[int] | None = None) -> Any:
    peak = max(range(len(codes)), key=codes.__getitem__)
    return SimpleNamespace(tokens=tokens, codes=codes, kinds=kinds or [0] * len(tokens), peak=peak)


def test_active_tokens_are_marked_by_their_share_of_the_peak() -> None:
    pieces = example_line([document(["I", "'m", " sorry", "\n"], [0.0, 1.0, 4.0, 0.0])], ())
    assert [(piece["text"], piece["level"]) for piece in pieces] == [
        ("I", 0.0), ("'m", 0.25), (" ", 0.0), ("sorry", 1.0), (" ", 0.0),
    ]  # fmt: skip


def test_control_tokens_are_shown_only_where_the_latent_fires() -> None:
    pieces = example_line([document(["<bos>", "tea", "<end>"], [0.0, 1.0, 0.5], [1, 0, 2])], ())
    assert "".join(piece["text"] for piece in pieces) == " tea<end>"


def test_the_document_with_the_most_words_of_the_theme_is_shown() -> None:
    first, second = document(["tea"], [1.0]), document(["hope", " helps"], [1.0, 0.0])
    assert example_line([first, second], ("hope", "helps"))[0]["text"] == "hope"
    assert example_line([first, second], ("cup",))[0]["text"] == "tea"


def test_a_long_document_is_cut_around_the_peak_with_dots() -> None:
    codes = [0.0] * 400
    codes[200] = 1.0
    pieces = example_line([document(["word "] * 400, codes)], ())
    assert pieces[0]["text"].startswith("… ")
    assert pieces[-1]["text"].endswith(" …")
    assert any(piece["level"] == 1.0 for piece in pieces)
    assert sum(len(piece["text"]) for piece in pieces) < LENGTH + 20


def test_a_huge_token_and_a_peak_outside_are_borne() -> None:
    assert around(["x" * 10_000, "y"], 0) == (0, 2)
    assert around(["a"], 7) == (0, 1)
    assert len(example_line([document(["x" * 10_000], [1.0])], ())[0]["text"]) < 50
