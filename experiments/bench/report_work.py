"""Invented latents, documents and labels for a report of a given size; the tests' artifacts hold them too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from crossdiff.core.checkpoint import WEIGHTS
from crossdiff.report.concepts import MAX_SHARED
from crossdiff.report.sources import ComparisonSource, PairSource, Sources
from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.ensemble import ensemble_deltas
from crossdiff.statistics.significance import power_line
from crossdiff.taxonomy.scheme import PaperTaxonomy

if TYPE_CHECKING:
    import pandas as pd

N_BASE = 3
"""Base-exclusive latents per pair, right after the tuned-exclusive ones."""
N_WORDS = 8000
WIDTH = 256
"""Of the invented decoders; only those of listed latents are written."""
SPREAD = 0.02
"""Standard deviation, per coordinate, between two seeds' directions of one concept: a cosine of about 0.9."""


@dataclass(frozen=True)
class Size:
    """How much to invent per pair."""

    n_latents: int = 600
    n_exclusive: int = 12
    n_examples: int = 4
    n_tokens: int = 24


def latent_table(size: Size, rng: np.random.Generator) -> pd.DataFrame:
    """A latent table with `n_exclusive` tuned-exclusive latents first, then `N_BASE` base-exclusive ones."""
    import pandas as pd

    n, first, last = size.n_latents, size.n_exclusive, size.n_exclusive + N_BASE
    norms = 1 + 0.1 * rng.standard_normal((2, n))
    norms[0, :first], norms[1, first:last] = 0.04, 0.03
    dead = np.arange(n) >= n - n // 20
    density = np.where(dead, 0.0, 10 ** rng.uniform(-5, -1.5, n))
    delta = np.where(dead, np.nan, (1 + (norms[1] - norms[0]) / norms.max(0)) / 2)
    columns: dict[str, Any] = {
        "latent": np.arange(n),
        "n_active": (density * 1e6).astype(int),
        "n_documents": (density * 1e4).astype(int) + 1,
        "density": density,
        "norm_base": norms[0],
        "norm_tuned": norms[1],
        "delta_norm": delta,
        "decoder_cosine": np.where(dead, np.nan, np.clip(0.9 + 0.1 * rng.standard_normal(n), -1, 1)),
        **_ratios(dead, rng),
    }
    kinds = [dead, delta < 0.1, delta > 0.9, (delta >= 0.4) & (delta <= 0.6)]
    columns["kind"] = np.select(kinds, ["dead", "base_only", "tuned_only", "shared"], "other")
    columns["call"] = np.where(dead, "undecided", "not_exclusive").astype(object)
    columns["exclusive_to"] = np.full(n, None, dtype=object)
    for name in ("nu_error", "nu_reconstruction"):
        columns[name][:first] = rng.uniform(0, 0.15, first)
        columns[f"{name}_low"], columns[f"{name}_high"] = columns[name] - 0.05, columns[name] + 0.05
    exclusive = slice(0, last if first else 0)
    columns["call"][exclusive] = "exclusive"
    columns["exclusive_to"][exclusive] = np.where(np.arange(n)[exclusive] < first, "tuned", "base")
    return pd.DataFrame(columns)


def _ratios(dead: NDArray[np.bool_], rng: np.random.Generator) -> dict[str, NDArray[np.float64]]:
    columns = {}
    for probe in ("", "_baseprobe"):
        for target in ("activation", "reconstruction", "error"):
            for model in ("base", "tuned"):
                columns[f"beta_{target}_{model}{probe}"] = rng.uniform(0.5, 1, len(dead))
            columns[f"nu_{target}{probe}"] = np.where(dead, np.nan, rng.normal(0.9, 0.15, len(dead)))
    return columns


def vocabulary(rng: np.random.Generator) -> NDArray[np.object_]:
    """Invented words of 2 to 9 letters, a space before each."""
    letters = np.array(list("etaoinshrdlucmfwypvbgk"))
    lengths = rng.integers(2, 10, N_WORDS)
    return np.array(
        [" " + "".join(letters[rng.integers(len(letters), size=n)]) for n in lengths], dtype=object
    )


def examples(latents: list[int], size: Size, rng: np.random.Generator) -> pd.DataFrame:
    """Windows of Zipf-distributed words, a tenth of the tokens active; harder to compress than English."""
    import pandas as pd

    words = vocabulary(rng)
    chances = 1 / np.arange(1, len(words) + 1)
    chances /= chances.sum()
    rows = []
    for latent in latents:
        drawn = rng.choice(len(words), size=(size.n_examples, size.n_tokens), p=chances)
        for rank, picked in enumerate(drawn):
            codes = np.where(rng.random(size.n_tokens) < 0.1, rng.uniform(0.2, 3, size.n_tokens), 0.0)
            peak, top = int(rng.integers(size.n_tokens)), rank < size.n_examples // 2
            codes[peak] = 4.0 / (rank + 1)
            row = {"latent": latent, "subset": "explain" if rank % 2 else "score", "rank": rank}
            row |= {"source": "top" if top else "quantile", "quantile": -1 if top else rank % 5}
            row |= {"document_id": f"doc-{latent}-{rank}", "document": rank, "start": 5 * rank, "peak": peak}
            row |= {"peak_code": codes[peak], "tokens": words[picked].tolist()}
            rows.append(
                row | {"codes": codes.astype("float32").tolist(), "kinds": [2] + [0] * (size.n_tokens - 1)}
            )
    names = "latent subset source quantile rank document_id document start peak peak_code tokens codes kinds"
    return pd.DataFrame(rows, columns=names.split())


def invented(sizes: Mapping[str, Size], *, seed: int = 0) -> Sources:
    """The sources of a report whose pairs have these sizes, all latents labelled with the paper's taxonomy.

    Two pairs are compared, the first being the reference.
    """
    rng = np.random.default_rng(seed)
    pairs = {name: _pair(name, size, rng) for name, size in sizes.items()}
    return _sources(pairs, {})


def invented_members(sizes: Mapping[str, Sequence[Size]], folder: Path, *, seed: int = 0) -> Sources:
    """As `invented`, with one crosscoder per size of a pair; `folder` takes their decoders.

    A pair's crosscoders hold the same concepts as far as their latents reach, so that these recur.
    """
    rng = np.random.default_rng(seed)
    members: dict[str, tuple[PairSource, ...]] = {}
    for name, of_pair in sizes.items():
        concepts = rng.standard_normal((max(size.n_exclusive for size in of_pair) + N_BASE, 2, WIDTH))
        concepts /= np.linalg.norm(concepts, axis=-1, keepdims=True)
        names = [name, *(f"{name}_seed{number}" for number in range(1, len(of_pair)))]
        members[name] = tuple(
            replace(_pair(one, size, rng), crosscoder=_decoder(folder / one, concepts, size, rng))
            for one, size in zip(names, of_pair, strict=True)
        )
    return _sources({name: of_pair[0] for name, of_pair in members.items()}, members)


def _decoder(folder: Path, concepts: NDArray[np.float64], size: Size, rng: np.random.Generator) -> Path:
    """A crosscoder folder with decoders [latent, model, width] near the concepts' directions.

    Further latents are written where there are few; the page compares no more of them anyway.
    """
    folder.mkdir(parents=True)
    decoder = concepts[: size.n_exclusive + N_BASE]
    if size.n_latents <= 2 * MAX_SHARED:
        others = rng.standard_normal((size.n_latents - len(decoder), 2, WIDTH)) / WIDTH**0.5
        decoder = np.concatenate([decoder, others])
    decoder = decoder + SPREAD * rng.standard_normal(decoder.shape)
    save_file({"decoder": decoder.astype(np.float32)}, folder / WEIGHTS)
    return folder


def _sources(pairs: dict[str, PairSource], members: dict[str, tuple[PairSource, ...]]) -> Sources:
    of_pairs = [list(members.get(name, (pair,))) for name, pair in pairs.items()]
    return Sources(
        pairs=pairs,
        comparison=_comparison(*of_pairs) if len(pairs) == 2 else None,
        annotate={},
        provenance=[],
        members=members,
    )


def _comparison(reference: Sequence[PairSource], treatment: Sequence[PairSource]) -> ComparisonSource:
    labels = [
        [[row["category"] for row in one.annotations if row["role"] == "exclusive_tuned"] for one in of_pair]
        for of_pair in (reference, treatment)
    ]
    taxonomy = PaperTaxonomy().load()
    if len(reference) > 1:
        deltas = ensemble_deltas(*labels, taxonomy=taxonomy)
    else:
        deltas = category_deltas(labels[0][0], labels[1][0], taxonomy=taxonomy, draws=200)
    n_reference, n_treatment = (sum(map(len, of_pair)) for of_pair in labels)
    power = power_line(n_reference=n_reference, n_treatment=n_treatment)
    return ComparisonSource(reference[0].name, treatment[0].name, deltas, {"power": power})


def _pair(name: str, size: Size, rng: np.random.Generator) -> PairSource:
    import pandas as pd

    table = latent_table(size, rng)
    listed = list(range(size.n_exclusive + N_BASE))
    roles = ["exclusive_tuned"] * size.n_exclusive + ["exclusive_base"] * N_BASE
    names = [category.name for category in PaperTaxonomy().load().categories]
    labels = [names[number] for number in rng.integers(len(names), size=len(listed))]
    steps = np.arange(0, 3000, 10)
    return PairSource(
        name=name,
        latents=table,
        training={"fve_base": 0.9, "fve_tuned": 0.9, "l0": 99.0, "k": 100, "dead_share": 0.05},
        diagnostics={},
        settings={},
        metrics=pd.DataFrame({"step": steps, "loss": np.exp(-steps / 900), "l0": 100 + steps * 0.0}),
        examples=examples(listed, size, rng),
        selection={"latents": [{"latent": j, "role": role} for j, role in zip(listed, roles, strict=True)]},
        annotations=[_label(name, j, roles[j], labels[j]) for j in listed],
        annotated=True,
    )


def _label(pair: str, latent: int, role: str, category: str) -> dict[str, Any]:
    return {
        "pair": pair, "latent": latent, "role": role, "state": "ok", "annotator": "invented",
        "label": f"{category} number {latent}", "description": "Fires on invented words.",
        "category": category, "class": "invented", "votes": {category: 0.67, "other": 0.33},
        "confidence": 4, "keywords": [category, "invented", "words"], "evidence": [0, 1],
        "scores": {"detection": 0.8},
    }  # fmt: skip
