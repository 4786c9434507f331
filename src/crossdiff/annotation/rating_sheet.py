"""The human check's sheet: writing blind items (CSV and one offline HTML page), reading ratings."""

from __future__ import annotations

import base64
import csv
import difflib
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from crossdiff.annotation.api.requests import sha256
from crossdiff.annotation.prompts import marked_text
from crossdiff.annotation.subjects import CategoryLike, Example
from crossdiff.taxonomy.scheme import OTHER, UNINTERPRETABLE

Unit = Literal["document", "latent"]
COLUMNS = ("item", "text", "category", "note")
EXAMPLES_PER_LATENT = 6
BETWEEN = "\n-----\n"
TEMPLATE = Path(__file__).with_name("rating_sheet.html")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""First characters that make a spreadsheet run a cell; `inert` puts an apostrophe before them."""


@dataclass(frozen=True)
class Item:
    """What a rater judges, under a blind name; `category` is the annotator's, for the key."""

    name: str
    texts: tuple[str, ...]
    pair: str
    latent: int
    category: str


@dataclass(frozen=True)
class Labelled:
    """An answered latent with its examples."""

    pair: str
    latent: int
    category: str
    examples: tuple[Example, ...]


def sample(latents: Sequence[Labelled], *, n: int, unit: Unit, seed: int) -> list[Item]:
    """At most `n` items in random order, balanced over the annotator's categories.

    Categories take turns, and within one its latents, each with its next document; the latents of all pairs
    are mixed. Documents are those of the strongest activations (quantile -1) where there are any.
    """
    generator = np.random.default_rng([seed, 10])
    queues: dict[str, list[Item]] = {}
    for latent in (latents[index] for index in generator.permutation(len(latents))):
        queues.setdefault(latent.category, []).extend(_items(latent, unit, seed))
    for queue in queues.values():
        queue.sort(key=lambda item: item.name[:2])
    names = [sorted(queues)[index] for index in generator.permutation(len(queues))]
    rounds = max(map(len, queues.values()), default=0)
    turns = [queues[name][turn] for turn in range(rounds) for name in names if turn < len(queues[name])]
    chosen = turns[:n]
    return [_renamed(chosen[index], seed) for index in generator.permutation(len(chosen))]


def _items(latent: Labelled, unit: Unit, seed: int) -> list[Item]:
    """The items of one latent; the first two characters of a name are its turn, until it is renamed."""
    top = [example for example in latent.examples if example.quantile < 0] or list(latent.examples)
    known = (latent.pair, latent.latent, latent.category)
    if unit == "latent":
        texts = tuple(marked_text(example) for example in top[:EXAMPLES_PER_LATENT])
        return [Item("00", texts, *known)] if texts else []
    return [Item(f"{turn:02d}", (marked_text(example),), *known) for turn, example in enumerate(top[:99])]


def _renamed(item: Item, seed: int) -> Item:
    """The item under a blind name, which no spreadsheet reads as a number (as 0012345678, 12e4567890)."""
    secret = json.dumps([seed, item.pair, item.latent, item.name, item.texts])
    return Item(f"item-{sha256(secret)[:10]}", item.texts, item.pair, item.latent, item.category)


def write_csv(items: Sequence[Item], path: Path) -> None:
    """The blind sheet for a spreadsheet: the columns `category` and `note` are empty."""
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(COLUMNS)
        for item in items:
            writer.writerow([item.name, inert(BETWEEN.join(item.texts)), "", ""])


def inert(text: str) -> str:
    """The text of a cell, so that no spreadsheet runs it."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def write_html(
    items: Sequence[Item], scheme: Sequence[CategoryLike], classes: Mapping[str, str], path: Path
) -> None:
    """The same sheet as one page that needs no network; ratings stay in the browser until downloaded."""
    categories = [
        {"name": c.name, "title": c.title, "definition": c.definition, "group": classes.get(c.name, "")}
        for c in scheme
    ]
    categories += [
        {"name": OTHER, "title": "Other", "definition": "Something else is in common.", "group": ""},
        {
            "name": UNINTERPRETABLE, "title": "Uninterpretable",
            "definition": "Nothing can be seen in what is marked.", "group": "",
        },
    ]  # fmt: skip
    content = {
        "sheet": sha256(json.dumps([item.name for item in items]))[:12],
        "items": [{"item": item.name, "texts": item.texts} for item in items],
        "categories": categories,
    }
    page = TEMPLATE.read_text(encoding="utf-8")
    script = page.split("<script>")[1].split("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    data = json.dumps(content).replace("<", "\\u003c").replace("&", "\\u0026")
    path.write_text(page.replace("@SCRIPT_HASH@", digest).replace("@CONTENT@", data), encoding="utf-8")


def read_ratings(path: Path, items: Sequence[str], categories: Sequence[str]) -> dict[str, str | None]:
    """Item -> category of one filled sheet; None where the cell was left empty."""
    rows = _rows(path)
    allowed = (*categories, OTHER, UNINTERPRETABLE)
    ratings: dict[str, str | None] = dict.fromkeys(items)
    for number, row in enumerate(rows, start=2):
        if _is_empty(row):
            continue  # spreadsheets write rows of empty cells below what was filled
        item, category = (row.get("item") or "").strip(), (row.get("category") or "").strip()
        if item not in ratings:
            raise ValueError(
                f"{path}, line {number}: item {item!r} is not in this run's sheet; import the file that was "
                "exported from the same results folder"
            )
        if ratings[item] is not None and category not in ("", ratings[item]):
            raise ValueError(
                f"{path}, line {number}: item {item} is rated twice; keep one line per item, and one file "
                "per person"
            )
        if category and category not in allowed:
            near = difflib.get_close_matches(category, allowed, n=3) or list(allowed)
            raise ValueError(
                f"{path}, line {number}: {category!r} is no category; did you mean {', '.join(near)}?"
            )
        ratings[item] = category or ratings[item]
    if not any(ratings.values()):
        raise ValueError(f"{path} holds no rating; fill in the column `category` and import it again")
    return ratings


def _is_empty(row: Mapping[Any, Any]) -> bool:
    """Whether all cells are blank, those beyond the last column (under None) included."""
    cells = (cell for value in row.values() for cell in (value if isinstance(value, list) else [value]))
    return not any((cell or "").strip() for cell in cells)


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ValueError(f"ratings file {path} does not exist; give validate.file=<filled sheet>") from None
    except UnicodeDecodeError:
        raise ValueError(f"ratings file {path} is not UTF-8; save the sheet as CSV UTF-8") from None
    first = text.partition("\n")[0]
    delimiter = ";" if first.count(";") > first.count(",") else ","
    rows = list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))
    given = rows[0].keys() if rows else ()
    missing = [name for name in ("item", "category") if name not in given]
    if missing:
        raise ValueError(
            f"ratings file {path} has no column {missing[0]!r}; its first line must be {','.join(COLUMNS)}"
        )
    return rows
