"""Finished `documents` folders with planted topics, as the stages annotate and compare read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from crossdiff.io.tables import write_json, write_table
from crossdiff.taxonomy.scheme import Category, PaperTaxonomy

FILLER = "river stone lamp window paper cloud garden bottle mirror copper silver basket".split()


def _words(category: Category, generator: np.random.Generator) -> list[str]:
    words = [*generator.choice(category.cues, 3), *generator.choice(FILLER, 10)]
    return [f" {word}" for word in generator.permutation(words)]


def _example(latent: int, subset: str, rank: int, category: Category, generator: np.random.Generator) -> dict:
    tokens = _words(category, generator)
    peak = int(generator.integers(len(tokens)))
    tokens.insert(peak, f" phrase{chr(97 + latent % 26)}")
    codes = np.zeros(len(tokens), dtype=np.float32)
    codes[peak] = 2.0
    return {
        "latent": np.int32(latent), "subset": subset, "source": "top", "quantile": np.int8(-1),
        "rank": np.int16(rank), "document_id": f"{subset}-{latent}-{rank}", "document": np.int32(rank),
        "start": np.int32(0), "peak": np.int32(peak), "peak_code": np.float32(2.0), "tokens": tokens,
        "codes": codes, "kinds": np.zeros(len(tokens), dtype=np.uint8),
    }  # fmt: skip


def write_documents(folder: Path, pair: str, latents: list[str]) -> Path:
    """A `documents` artifact: one exclusive latent per given category name."""
    categories = {category.name: category for category in PaperTaxonomy().load().categories}
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(len(latents))
    rows = [
        _example(latent, subset, rank, categories[name], generator)
        for latent, name in enumerate(latents)
        for subset in ("explain", "score")
        for rank in range(6)
    ]
    columns = list(_example(0, "explain", 0, categories["translation"], generator))
    write_table(pd.DataFrame(rows, columns=columns), folder / "examples.parquet", version=1, kind="examples")
    background = [
        {"document_id": f"b{i}-{name}", "tokens": tokens, "kinds": np.zeros(len(tokens), dtype=np.uint8)}
        for name, category in categories.items()
        for i in range(4)
        for tokens in [_words(category, generator)]
    ]
    write_table(pd.DataFrame(background), folder / "background.parquet", version=1, kind="background")
    entries = [{"latent": latent, "role": "exclusive_tuned"} for latent in range(len(latents))]
    write_json({"version": 1, "pair": pair, "latents": entries, "rejected": {}}, folder / "selection.json")
    return folder
