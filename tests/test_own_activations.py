"""Activations that another tool stored become a comparison, and its crosscoders go out and come in again."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.model_folders import make_tokenizer

MODELS = {"base": "base", "old.tuned": "old", "new.tuned": "new"}
N_DOCUMENTS, LENGTH, D_MODEL, N_SHARED, N_OWN = 160, 50, 24, 24, 6
PAIR = "{_target_: crossdiff.models.pair.custom_pair, base: no/base, "
COMPARISON = f"""
_target_: crossdiff.models.pair.Comparison
reference: {PAIR} name: old, tuned: no/old}}
treatment: {PAIR} name: new, tuned: no/new}}
n_seeds: 1
"""
SMALL = (
    "comparison=mine", "layer=1", "source=files", "dictionary=toy", "dictionary.n_latents=64", "training=toy",
    "training.n_steps=400", "training.batch_size=256", "device=cpu", "progress=false", "draws=200",
)  # fmt: skip


def activations() -> dict[str, torch.Tensor]:
    """Rows `[token, d_model]` per model: shared features, and of each tuned model features of its own."""
    draw = torch.Generator().manual_seed(7)
    n_rows, n_features = N_DOCUMENTS * LENGTH, N_SHARED + 2 * N_OWN
    directions = torch.randn(n_features, D_MODEL, generator=draw)
    directions /= directions.norm(dim=1, keepdim=True)
    active = torch.rand(n_rows, n_features, generator=draw) < 3 / n_features
    code = active * (1 + torch.rand(n_rows, n_features, generator=draw))
    own = {"base": (0, 0), "old": (1, 0), "new": (0, 1)}
    found = {}
    for name, (first, second) in own.items():
        seen = code * torch.tensor([1] * N_SHARED + [first] * N_OWN + [second] * N_OWN)
        noise = 0.02 * torch.randn(n_rows, D_MODEL, generator=draw)
        found[name] = (5 * seen @ directions + noise).float()
    return found


def stored(folder: Path) -> list[str]:
    """Arrays, ids, offsets, a tokenizer and the comparison's file, as the command line names them."""
    for name, rows in activations().items():
        np.save(folder / f"{name}.npy", rows.numpy())
    tokenizer = make_tokenizer()
    tokenizer.save_pretrained(folder / "tokenizer")
    draw = np.random.default_rng(0)
    ids = draw.integers(10, len(tokenizer), size=(N_DOCUMENTS, LENGTH))
    ids[:, 0] = tokenizer.bos_token_id
    np.save(folder / "ids.npy", ids.ravel())
    np.save(folder / "offsets.npy", np.arange(N_DOCUMENTS + 1) * LENGTH)
    (folder / "conf/comparison").mkdir(parents=True)
    (folder / "conf/comparison/mine.yaml").write_text(COMPARISON)
    named = ", ".join(f"{name}: {folder}/{file}.npy" for name, file in MODELS.items())
    return [
        "--config-dir", f"{folder}/conf", f"source.activations={{{named}}}", f"source.ids={folder}/ids.npy",
        f"source.offsets={folder}/offsets.npy", f"source.tokenizer={folder}/tokenizer",
        f"store={folder}/store",
    ]  # fmt: skip
