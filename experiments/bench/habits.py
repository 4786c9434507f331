"""Labels on a real pair: how many of the latents that sit on a habit of the tuned model are labelled by it.

python -m crossdiff.bench habits

A small language model learns chats, then chats of the same kind with habits: an opening, a closing line, a
refusal in two wordings, bullets. The pair goes through the pipeline like any other, but for the limits of
latent scaling, so that every latent on the tuned model's side gets a label. A latent sits on a habit if most
of its top documents of the corpus peak inside the very words (or mark) that were put into the answers; no
annotator is asked for that. It is labelled by the habit if its category is the habit's, or its label opens
with words of the habit. The annotator has patterns for refusals, closing lines and marks, none for openings.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import Field

from experiments.bench.habits_pair import CLOSING, MARK, OPENING, REFUSALS, PairSize, save_pair

CATEGORIES = {
    "opening": None, "closing": "greeting_closing", "refusal": "harmful_request_refusal",
    "formatting": "structured_output",
}  # fmt: skip
"""The taxonomy's category about the habit; None where it has none, and `other` is right."""
SENTENCES = {"opening": (OPENING,), "closing": (CLOSING,), "refusal": REFUSALS}
AT_LEAST = 0.8
"""Share of a latent's top documents whose peak stands in the habit."""
MIN_LETTERS = 4
"""Letters from which on the words that open a label can be told from function words."""


class HabitsBench(PairSize):
    """Sizes of the pair, and of the crosscoder at `layer`."""

    layer: int = Field(default=2, ge=0)
    n_latents: int = Field(default=512, ge=8)
    n_steps: int = Field(default=800, ge=1)
    batch_size: int = Field(default=512, ge=8)
    k: int = Field(default=12, ge=1)
    min_tokens: int = Field(default=20, ge=1)
    folder: str | None = None
    """Where the pair and its store are kept; a temporary folder unless given."""
    show: int = 0
    """How many labels are printed."""


def main(overrides: list[str]) -> dict:
    """Latents on each habit, and the shares that are labelled by it, in its category, and in another one."""
    bench = HabitsBench.model_validate(dict(item.split("=", 1) for item in overrides))
    start = time.process_time()
    with _folder(bench) as folder:
        losses = save_pair(folder, PairSize(**bench.model_dump(include=set(PairSize.model_fields))))
        tops, answers = labelled(folder, bench)
    rows = [(habit, answers[latent]) for latent, habit in on_habits(tops) if latent in answers]
    for habit, row in rows[: bench.show]:
        print(habit, row["category"], repr(row["label"]))
    n = max(len(rows), 1)
    return {
        "losses": [round(loss, 2) for loss in losses],
        "n_labelled": len(answers),
        "n_on_a_habit": len(rows),
        "on": dict(Counter(habit for habit, _ in rows)),
        "labelled_by_it": round(sum(is_labelled(*row) for row in rows) / n, 3),
        "in_its_category": round(
            sum(row["category"] == (CATEGORIES[h] or "other") for h, row in rows) / n, 3
        ),
        "in_another": round(sum(row["category"] not in {CATEGORIES[h], "other"} for h, row in rows) / n, 3),
        "cpu_s": round(time.process_time() - start),
    }


@contextmanager
def _folder(bench: HabitsBench) -> Iterator[Path]:
    if bench.folder is not None:
        yield Path(bench.folder)
        return
    with tempfile.TemporaryDirectory(prefix="crossdiff-") as name:
        yield Path(name)


def labelled(folder: Path, bench: HabitsBench) -> tuple[pd.DataFrame, dict[int, dict[str, Any]]]:
    """Top documents of all documented latents, and the answers about those of the tuned model's side."""
    from crossdiff.notebook.small_run import diff

    chats = [json.loads(line)["messages"] for line in (folder / "chats.jsonl").open()]
    settings = (
        f"dictionary.n_latents={bench.n_latents}", f"sparsity.k={bench.k}",
        f"training.n_steps={bench.n_steps}",
        f"training.batch_size={bench.batch_size}", f"selection.min_tokens={bench.min_tokens}",
        "selection.nu_error=1e9", "selection.nu_reconstruction=1e9", "corpus.context=256",
    )  # fmt: skip
    diff(
        str(folder / "base"), str(folder / "tuned"), chats, bench.layer, store=folder / "store",
        results=folder / "results", settings=settings, dtype="float32", device="cpu", progress=False,
    )  # fmt: skip
    (path,) = (folder / "store" / "documents").glob("*/top_documents.parquet")
    (file,) = (folder / "results").glob("annotations*.jsonl")
    rows = [json.loads(line) for line in file.open()]
    return pd.read_parquet(path), {row["latent"]: row for row in rows if row["role"] == "exclusive_tuned"}


def on_habits(tops: pd.DataFrame) -> Iterator[tuple[int, str]]:
    """(latent, habit) of the latents that sit on one."""
    for latent, windows in tops.groupby("latent"):
        habits = Counter(place_of(row["tokens"], row["peak"]) for row in windows.to_dict("records"))
        habit, count = habits.most_common(1)[0]
        if habit is not None and count >= AT_LEAST * len(windows):
            yield int(str(latent)), habit


def place_of(tokens: list[str], peak: int) -> str | None:
    """The habit in whose words the peak token ends."""
    text = "".join(tokens)
    last = sum(len(token) for token in tokens[: peak + 1]) - 1
    patterns = {
        name: "|".join(re.escape(sentence.strip()) for sentence in sentences)
        for name, sentences in SENTENCES.items()
    }
    patterns["formatting"] = rf"(?m)^{re.escape(MARK)}"
    for name, pattern in patterns.items():
        if any(match.start() <= last < match.end() for match in re.finditer(pattern, text)):
            return name
    return None


def is_labelled(habit: str, row: dict[str, Any]) -> bool:
    """Whether the label opens with words of the habit, or the category is the habit's."""
    if CATEGORIES[habit] is not None and row["category"] == CATEGORIES[habit]:
        return True
    if habit == "formatting":
        return str(row["label"]).startswith("formatting: line mark")
    first = _words(str(row["label"] or "").split(", ")[0])
    return len(first) >= MIN_LETTERS and any(first in _words(sentence) for sentence in SENTENCES[habit])


def _words(text: str) -> str:
    """The words alone, as labels write them."""
    return " ".join(re.findall(r"[\w']+", text.lower()))
