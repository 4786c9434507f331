"""One annotation run against a server, for tests that run it here and for those that kill its process."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from crossdiff.annotation.annotators import AnnotationRun
from crossdiff.annotation.results import Annotation
from crossdiff.annotation.settings import AnnotatorSettings, AnthropicCompatible, Claude, ClaudeBatch
from crossdiff.annotation.subjects import Document, Example, Subject
from crossdiff.taxonomy.scheme import Category, PaperTaxonomy
from tests.messages_server import KEY

N_WORDS = 14


def scheme() -> tuple[Category, ...]:
    return PaperTaxonomy().load().categories


def window(name: str, generator: np.random.Generator, words: Sequence[str]) -> Example:
    tokens = [f" {word}" for word in generator.choice(words, N_WORDS)]
    codes = np.zeros(N_WORDS, dtype=np.float32)
    peak = int(generator.integers(N_WORDS))
    codes[peak] = 1.0
    return Example(name, tokens, np.zeros(N_WORDS, dtype=np.uint8), codes, peak, -1)


def subjects(n: int, *, n_examples: int = 4) -> list[Subject]:
    """Latents under blind keys, each with windows about one category and held-out ones."""
    made = []
    for index in range(n):
        generator = np.random.default_rng([1, index])
        words = scheme()[index % 30].cues
        windows = [window(f"d{index}-{rank}", generator, words) for rank in range(2 * n_examples)]
        made.append(Subject(f"{index:05d}", tuple(windows[:n_examples]), tuple(windows[n_examples:])))
    return made


def background() -> list[Document]:
    generator = np.random.default_rng(2)
    return [window(f"b{index}", generator, scheme()[index % 30].cues) for index in range(60)]


def campaign(asked: AnnotatorSettings, store: Path, n: int) -> AnnotationRun:
    return AnnotationRun(asked, subjects(n), background(), seed=0, store=store, progress=False)


def settings(kind: str, address: str, **changes: Any) -> Claude | ClaudeBatch | AnthropicCompatible:
    """Settings of one annotator against a local server; `scores` off unless asked for."""
    shared: dict[str, Any] = {"base_url": address, "scores": (), "timeout_s": 10.0, "fallback": ()}
    match kind:
        case "claude":
            return Claude(**shared | changes)
        case "claude_batch":
            return ClaudeBatch(**shared | {"poll_s": 0.01} | changes)
        case _:
            return AnthropicCompatible(**shared | {"model": "local", "api_key_env": "TEST_KEY"} | changes)


def annotate(kind: str, address: str, store: Path, n: int, **changes: Any) -> list[Annotation]:
    """Annotate everything here."""
    asked = campaign(settings(kind, address, **changes), store, n)
    return list(asked.annotator(scheme()).annotate(asked.subjects))


def lines(annotations: Sequence[Annotation]) -> str:
    """The annotations as text that is equal where they are."""
    rows = [a.row(pair="p", latent=int(a.key), role="exclusive_tuned", parent=None) for a in annotations]
    return "".join(json.dumps(row, sort_keys=True) + "\n" for row in rows)


def main(kind: str, address: str, store: str, n: str, changes: str) -> None:
    """`python -m tests.annotation.campaign`: the run in a process of its own."""
    os.environ["ANTHROPIC_API_KEY"] = KEY
    found = annotate(kind, address, Path(store), int(n), **json.loads(changes))
    Path(store, "annotations.jsonl").write_text(lines(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
