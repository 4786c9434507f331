"""The rating sheet: blind, balanced, inert against hostile documents, and readable again."""

from __future__ import annotations

import csv
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from crossdiff.annotation.rating_sheet import Item, Labelled, read_ratings, sample, write_csv, write_html
from crossdiff.annotation.subjects import Example

HOSTILE = ["</script><script>alert(1)</script>", "=HYPERLINK(1)", "\u202eabc\x00", "x" * 100_000, "«»", "123"]


def shown(text: str, name: str) -> Example:
    tokens = [text, " end"]
    zeros = np.zeros(2, dtype=np.uint8)
    return Example(name, tokens, zeros, np.array([1, 0], dtype=np.float32), 0, -1)


def latents(**counts: int) -> list[Labelled]:
    return [
        Labelled(pair, index, name, tuple(shown(f"{name} {index} {d}", f"{index}-{d}") for d in range(5)))
        for name, count in counts.items()
        for index in range(count)
        for pair in ("pt_it", "pt_simpo")
    ]


def test_items_are_balanced_over_categories_and_latents() -> None:
    items = sample(latents(translation=20, mathematics=2), n=40, unit="document", seed=0)
    assert Counter(item.category for item in items) == {"translation": 20, "mathematics": 20}
    per_latent = Counter((item.pair, item.latent) for item in items if item.category == "translation")
    assert max(per_latent.values()) == 1
    assert {item.pair for item in items} == {"pt_it", "pt_simpo"}
    assert len({item.name for item in items}) == 40
    assert all(item.name.startswith("item-") for item in items)


def test_latents_as_items_show_several_documents_once_each() -> None:
    items = sample(latents(translation=3, mathematics=3), n=100, unit="latent", seed=0)
    assert len(items) == 12
    assert all(len(item.texts) == 5 for item in items)


def test_the_sample_depends_on_the_seed_alone() -> None:
    first = sample(latents(translation=9), n=10, unit="document", seed=0)
    assert first == sample(latents(translation=9), n=10, unit="document", seed=0)
    assert first != sample(latents(translation=9), n=10, unit="document", seed=1)


def test_the_sheet_tells_neither_pair_nor_category(tmp_path: Path, scheme) -> None:
    plain = [
        Labelled("pt_it", 4711, "translation", (shown("hello", "d"),)),
        Labelled("pt_simpo", 4712, "mathematics", (shown("world", "e"),)),
    ]
    items = sample(plain, n=2, unit="document", seed=0)
    write_csv(items, tmp_path / "sheet.csv")
    write_html(items, scheme, {"translation": "Languages"}, tmp_path / "sheet.html")
    text = (tmp_path / "sheet.csv").read_text(encoding="utf-8")
    assert not any(secret in text for secret in ("pt_it", "pt_simpo", "4711", "translation", "mathematics"))
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    content = json.loads(page.split('id="content">')[1].split("</script>")[0])
    assert not any(secret in json.dumps(content["items"]) for secret in ("pt_it", "4711", "translation"))
    assert [entry["name"] for entry in content["categories"]][-2:] == ["other", "uninterpretable"]


def test_hostile_documents_stay_text(tmp_path: Path, scheme) -> None:
    hostile = [
        Labelled("pt_it", index, "translation", (shown(text, str(index)),))
        for index, text in enumerate(HOSTILE)
    ]
    items = sample(hostile, n=10, unit="document", seed=0)
    write_html(items, scheme, {}, tmp_path / "sheet.html")
    write_csv(items, tmp_path / "sheet.csv")
    page = (tmp_path / "sheet.html").read_text(encoding="utf-8")
    assert page.count("</script>") == 2
    assert "alert(1)</script>" not in page
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert max(map(len, items[0].texts)) < 3000
    with (tmp_path / "sheet.csv").open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == len(HOSTILE)
    assert not any(row["text"].startswith(("=", "+", "-", "@")) for row in rows)
    assert not any(sign in row["text"] for row in rows for sign in "\u202e\x00")


def test_line_separators_of_a_document_do_not_break_the_sheet(tmp_path: Path) -> None:
    told = Labelled("pt_it", 7, "translation", (shown("one\u2028two\u2029three", "d"),))
    items = sample([told], n=1, unit="document", seed=0)
    assert items[0].texts[0].startswith("«one two three»")
    torn = Item(items[0].name, ("\u2028\x85a\u2029",), "pt_it", 7, "translation")
    write_csv([torn], tmp_path / "sheet.csv")
    filled = (tmp_path / "sheet.csv").read_text(encoding="utf-8").replace(",,", ",translation,")
    (tmp_path / "sheet.csv").write_text(filled, encoding="utf-8")
    assert read_ratings(tmp_path / "sheet.csv", [torn.name], ["translation"]) == {torn.name: "translation"}


def sheet(path: Path, *lines: str, head: str = "item,category,note") -> Path:
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def test_ratings_are_read_from_comma_semicolon_and_marked_files(tmp_path: Path) -> None:
    wanted = {"a": "translation", "b": None, "c": "other"}
    plain = sheet(tmp_path / "1.csv", "a,translation,", "b,,not sure", "c,other,")
    assert read_ratings(plain, ["a", "b", "c"], ["translation"]) == wanted
    padded = sheet(tmp_path / "3.csv", "a,translation,", ",,", "c,other,", " ,,", ",,,,", "")
    assert read_ratings(padded, ["a", "b", "c"], ["translation"]) == wanted
    excel = sheet(tmp_path / "2.csv", "a;translation;", "c;other;", head="\ufeffitem;category;note")
    assert read_ratings(excel, ["a", "b", "c"], ["translation"]) == wanted


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["zz,translation,"], "line 2: item 'zz' is not in this run's sheet"),
        (["a,translatoin,"], "did you mean translation"),
        (["a,translation,", "a,other,"], "rated twice"),
        (["a,,"], "holds no rating"),
    ],
)
def test_a_wrong_sheet_is_refused_with_line_and_way_out(tmp_path: Path, lines, message) -> None:
    with pytest.raises(ValueError, match=message):
        read_ratings(sheet(tmp_path / "s.csv", *lines), ["a", "b"], ["translation"])


def test_files_that_are_no_sheet(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        read_ratings(tmp_path / "none.csv", ["a"], [])
    with pytest.raises(ValueError, match="no column 'item'"):
        read_ratings(sheet(tmp_path / "s.csv", "1,2", head="x,y"), ["a"], [])
    (tmp_path / "b.csv").write_bytes(b"\xff\xfe\x00item")
    with pytest.raises(ValueError, match="not UTF-8"):
        read_ratings(tmp_path / "b.csv", ["a"], [])
