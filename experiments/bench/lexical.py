"""The lexical annotator on many latents: seconds, documents per second, peak memory.

python -m crossdiff.bench lexical n_latents=5000 n_documents=20 n_tokens=128
"""

from __future__ import annotations

import time

import numpy as np
from pydantic import Field

from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.settings import Lexical
from crossdiff.annotation.subjects import Document, Example, Subject
from crossdiff.io.environment import peak_memory_mb
from crossdiff.settings import Settings
from crossdiff.taxonomy.scheme import PaperTaxonomy


class LexicalBench(Settings):
    """Sizes; `key=value` on the command line. Documents are random words of 20,000 and some cue words."""

    n_latents: int = Field(default=5000, ge=1)
    n_documents: int = Field(default=20, ge=1)
    n_tokens: int = Field(default=128, ge=2)
    n_background: int = Field(default=200, ge=1)
    seed: int = 0


def main(overrides: list[str]) -> dict:
    """Wall and CPU seconds of assigning all latents; documents are made one latent at a time, not counted."""
    bench = LexicalBench.model_validate(dict(item.split("=", 1) for item in overrides))
    generator = np.random.default_rng(bench.seed)
    scheme = PaperTaxonomy().load().categories
    background = [_document(bench, generator, f"b{number}") for number in range(bench.n_background)]
    annotator = LexicalAnnotator(Lexical(), scheme, background, seed=bench.seed)
    wall = cpu = 0.0
    n_labelled = 0
    for number in range(bench.n_latents):
        cues = scheme[number % len(scheme)].cues
        examples = [_window(bench, generator, f"{number}-{d}", cues) for d in range(bench.n_documents)]
        start, start_cpu = time.perf_counter(), time.process_time()
        (answer,) = annotator.annotate([Subject(f"{number:05d}", tuple(examples))])
        wall, cpu = wall + time.perf_counter() - start, cpu + time.process_time() - start_cpu
        n_labelled += answer.category == scheme[number % len(scheme)].name
    return {
        "n_latents": bench.n_latents,
        "n_documents": bench.n_documents,
        "n_tokens": bench.n_tokens,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "documents_per_cpu_s": round(bench.n_latents * bench.n_documents / cpu),
        "share_right": n_labelled / bench.n_latents,
        "peak_mb": round(peak_memory_mb()),
    }


def _document(bench: LexicalBench, generator: np.random.Generator, name: str) -> Document:
    """Random words."""
    drawn = generator.integers(20_000, size=bench.n_tokens)
    tokens = [f" {_word(int(number))}" for number in drawn]
    return Document(name, tokens, np.zeros(bench.n_tokens, dtype=np.uint8))


def _window(bench: LexicalBench, generator: np.random.Generator, name: str, cues: tuple[str, ...]) -> Example:
    """Random words with four cue words among them; the codes are random with a tenth of the tokens active."""
    plain = _document(bench, generator, name)
    tokens = list(plain.tokens)
    for place in generator.integers(bench.n_tokens, size=4):
        tokens[place] = f" {generator.choice(cues)}"
    active = generator.random(bench.n_tokens) < 0.1
    codes = (generator.random(bench.n_tokens) * active).astype(np.float32)
    return Example(name, tokens, plain.kinds, codes, int(codes.argmax()), -1)


def _word(number: int) -> str:
    """A word of letters for a number."""
    letters = ""
    while number or len(letters) < 4:
        number, digit = divmod(number, 26)
        letters += chr(97 + digit)
    return letters
