from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pandas as pd

from crossdiff.report import documents
from crossdiff.report.documents import LENGTH, around, example_line


def example(tokens: list[str], codes: list[float], *, kinds: list[int] | None = None, peak: int = 0):
    return SimpleNamespace(
        tokens=tokens, codes=codes, kinds=kinds or [0] * len(tokens), peak=peak, peak_code=max(codes),
        document_id="d", source="top", quantile=-1, subset="explain", start=7, rank=0,
    )  # fmt: skip


def pack(row: SimpleNamespace, peak: float) -> dict:
    return documents.pack_document(documents.Shown.of(row), peak, None)


def table(rows: list[tuple[str, str, int, float, str]]) -> pd.DataFrame:
    columns = ("document_id", "subset", "rank", "peak_code", "text")
    frame = pd.DataFrame([dict(zip(columns, row, strict=True)) for row in rows])
    frame["tokens"] = [text.split() for text in frame["text"]]
    frame["codes"] = [
        [code] + [0.0] * (len(t) - 1) for code, t in zip(frame.peak_code, frame.tokens, strict=True)
    ]
    frame["kinds"] = [[0] * len(tokens) for tokens in frame["tokens"]]
    return frame.assign(latent=3, source="top", quantile=-1, start=0, peak=0)


FIRST = "given to the annotator (a highest peak)"
KEPT = "kept to check the label (a highest peak)"
GIVEN = table(
    [
        ("a", "explain", 0, 5.0, "the river and the stone"),
        ("b", "explain", 1, 1.0, "please help me with this sum"),
        ("c", "score", 0, 4.0, "a bright winter in the north"),
        ("d", "score", 1, 2.0, "an error in that query"),
    ]
)


def shown(found: dict) -> list[list[tuple[str, float, str, int]]]:
    return [
        [(d["id"], d["code"], d["use"], d["n_like"]) for d in group["documents"]] for group in found["groups"]
    ]


def test_documents_fall_in_code_though_rank_restarts_in_every_subset() -> None:
    found = documents.document_groups(None, documents.falling(GIVEN), n_shown=4)
    assert shown(found) == [
        [
            ("a", 5, FIRST, 0),
            ("c", 4, KEPT, 0),
        ],
        [
            ("d", 2, KEPT, 0),
            ("b", 1, FIRST, 0),
        ],
    ]
    assert "did not record" in found["groups"][0]["note"]


def test_the_first_document_is_the_highest_of_the_corpus_and_says_who_had_it() -> None:
    top = pd.concat([table([("z", "explain", 0, 9.0, "nobody was given this one")]), GIVEN])
    found = documents.document_groups(documents.falling(top), documents.falling(GIVEN), n_shown=6)
    assert [group["title"] for group in found["groups"]] == [documents.TOP[0], documents.OTHERS[0]]
    assert shown(found)[0][0] == ("z", 9, documents.NOT_USED, 0)
    assert [code for group in shown(found) for _, code, *_ in group] == [9, 5, 4, 2, 1]


def test_a_near_identical_document_is_counted_and_not_shown_again() -> None:
    same = "the river and the stone and the wood and the winter and the house"
    top = table(
        [
            ("a", "explain", 0, 5.0, same),
            ("e", "explain", 1, 4.5, same),
            ("c", "score", 0, 4.0, "a b c d e f"),
        ]
    )
    given = GIVEN.assign(document_id=["e", "b", "c", "d"])
    found = documents.document_groups(documents.falling(top), documents.falling(given), n_shown=4)
    assert [(name, n) for name, _, _, n in shown(found)[0]] == [("a", 1), ("c", 0)]
    assert [name for name, *_ in shown(found)[1]] == ["d", "b"]


def test_others_are_spread_over_the_codes() -> None:
    found = documents.document_groups(documents.falling(GIVEN.head(1)), documents.falling(GIVEN), n_shown=2)
    assert found["groups"][1]["title"].endswith("(1 of 3)")
    assert [one.row for one in documents.spread([documents.Shown(c, frozenset()) for c in "abcdef"], 3)] == [
        "a",
        "c",
        "e",
    ]


def test_text_is_kept_once_and_only_active_tokens_are_marked() -> None:
    packed = pack(example(["I", " can", "not"], [0, 2.0, 1.0], peak=1), 4.0)
    assert packed["text"] == "I cannot"
    assert packed["marks"] == [[2, 3, 128], [5, 3, 64]]


def test_positions_count_as_javascript_does() -> None:
    packed = pack(example(["👩", "x"], [0, 1.0], peak=1), 1.0)
    assert packed["marks"] == [[2, 1, 255]]


def test_neighbouring_template_tokens_become_one_run() -> None:
    row = example(["<turn>", "user", "hi"], [0, 0, 1.0], kinds=[2, 2, 0], peak=2)
    assert pack(row, 1.0)["template"] == [[0, 10]]


def test_a_window_of_giant_tokens_keeps_the_peak() -> None:
    tokens = ["a" * 50_000, "b", "c" * 50_000]
    first, last = documents.window(tokens, 1)
    assert first <= 1 < last
    packed = pack(example(["a" * 50_000, "b", "c"], [0, 1.0, 0], peak=1), 1.0)
    assert len(packed["text"]) < 3 * documents.MAX_TEXT
    assert any(packed["text"][start : start + length] == "b" for start, length, _ in packed["marks"])


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
