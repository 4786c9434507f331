from __future__ import annotations

import base64
import json
import zlib
from types import SimpleNamespace

import pandas as pd

from crossdiff.report import explorer
from crossdiff.report.sources import Sources


def unpacked(chunk: str) -> dict:
    return json.loads(zlib.decompress(base64.b64decode(chunk)))


def example(tokens: list[str], codes: list[float], *, kinds: list[int] | None = None, peak: int = 0):
    return SimpleNamespace(
        tokens=tokens, codes=codes, kinds=kinds or [0] * len(tokens), peak=peak, peak_code=max(codes),
        document_id="d", source="top", quantile=-1, subset="explain", start=7, rank=0,
    )  # fmt: skip


def test_text_is_kept_once_and_only_active_tokens_are_marked() -> None:
    packed = explorer.pack_example(example(["I", " can", "not"], [0, 2.0, 1.0], peak=1), 4.0)
    assert packed["text"] == "I cannot"
    assert packed["marks"] == [[2, 3, 128], [5, 3, 64]]


def test_positions_count_as_javascript_does() -> None:
    packed = explorer.pack_example(example(["👩", "x"], [0, 1.0], peak=1), 1.0)
    assert packed["marks"] == [[2, 1, 255]]


def test_neighbouring_template_tokens_become_one_run() -> None:
    row = example(["<turn>", "user", "hi"], [0, 0, 1.0], kinds=[2, 2, 0], peak=2)
    assert explorer.pack_example(row, 1.0)["template"] == [[0, 10]]


def test_a_window_of_giant_tokens_keeps_the_peak() -> None:
    tokens = ["a" * 50_000, "b", "c" * 50_000]
    first, last = explorer.window(tokens, 1)
    assert first <= 1 < last
    packed = explorer.pack_example(example(["a" * 50_000, "b", "c"], [0, 1.0, 0], peak=1), 1.0)
    assert len(packed["text"]) < 3 * explorer.MAX_TEXT
    assert any(packed["text"][start : start + length] == "b" for start, length, _ in packed["marks"])


def test_top_and_quantile_examples_share_the_place() -> None:
    rows = [{"rank": i, "source": "top", "quantile": -1} for i in range(10)]
    rows += [{"rank": i, "source": "quantile", "quantile": i % 5} for i in range(10)]
    chosen = explorer.choose(pd.DataFrame(rows), 6)
    assert [row.source for row in chosen] == ["top"] * 3 + ["quantile"] * 3
    assert [row.rank for row in chosen[:3]] == [0, 1, 2]
    assert len(explorer.choose(pd.DataFrame(rows[:10]), 6)) == 6


def test_every_selected_latent_has_a_row_and_a_chunk(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    index, chunks = explorer.pack(pair, n_examples=3)
    assert len(index) == len(chunks) == len(pair.selected()) == 16
    assert {row["role"] for row in index} == {"exclusive_tuned", "exclusive_base", "control_shared"}
    detail = unpacked(chunks["0"])
    assert len(detail["examples"]) == 3
    assert detail["n_examples"] == 4
    assert detail["votes"] == {"harmful_request_refusal": 0.67, "other": 0.33}
    assert detail["logits"]["tuned"]["top"] == [["the", 0.5], [" river", 0.5]]
    assert detail["histogram"]["counts"] == [900, 0, 3]


def test_the_intruder_score_neither_sorts_nor_filters(sources: Sources) -> None:
    assert explorer.score({"detection": 0.5, "fuzz": 0.75, "intruder": 1.0}) == 0.625
    assert explorer.score({"detection": 0.5, "fuzz": None, "intruder": 1.0}) == 0.5
    assert explorer.score({"intruder": 1.0}) is None
    index, _ = explorer.pack(sources.pairs["pt_it"], n_examples=1)
    row = next(row for row in index if row["latent"] == 4)
    assert (row["score"], row["scores"]["intruder"]) == (0.9, 1.0)


def test_a_swapped_control_does_not_hide_the_latent_it_borrowed(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    swapped = {**pair.annotations[0], "role": "control_swapped", "label": "wrong"}
    pair.annotations.append(swapped)
    index, _ = explorer.pack(pair, n_examples=1)
    pair.annotations.remove(swapped)
    assert next(row for row in index if row["latent"] == 0)["label"] != "wrong"
