"""Activations that another tool stored become a comparison, and its crosscoders go out and come in again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.actions.test_run import typed
from tests.model_folders import make_tokenizer

MODELS = {"base": "base", "old.tuned": "old", "new.tuned": "new"}
N_DOCUMENTS, LENGTH, D_MODEL, N_SHARED, N_OWN = 160, 50, 24, 24, 6
PAIR = "{_target_: crossdiff.models.pair.custom_pair, base: no/base, "
COMPARISON = f"""
_target_: crossdiff.models.pair.Comparison
reference: {PAIR} name: old, tuned: no/old}}
treatment: {PAIR} name: new, tuned: no/new}}
"""
SMALL = (
    "comparison=mine", "layer=1", "source=files", "dictionary=toy", "dictionary.n_latents=64", "training=toy",
    "training.n_steps=500", "training.learning_rate=0.005", "training.batch_size=256", "sparsity=toy",
    "sparsity.k=4", "sparsity.k_initial=16", "sparsity.anneal_steps=100", "device=cpu", "progress=false",
    "draws=200",
    "documents.n_controls=4", "documents.n_background=50",
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


def calls(results: Path) -> dict[str, pd.DataFrame]:
    """Latent -> call and the model it is exclusive to, per pair."""
    files = sorted(results.glob("latents.*.parquet"))
    return {file.name: pd.read_parquet(file)[["latent", "call", "exclusive_to"]] for file in files}


@pytest.mark.slow
def test_arrays_become_a_comparison_whose_crosscoders_come_back_as_they_went(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every planted feature of one's own is found, and every format gives the deltas and calls of the run."""
    given = [*stored(tmp_path), *SMALL]
    own = tmp_path / "own"
    assert typed(monkeypatch, *given, f"results_dir={own}") == 0
    assert (own / "report.html").is_file()
    for name in ("old", "new"):
        found = pd.read_parquet(own / f"latents.{name}.parquet")
        assert (found["exclusive_to"] == "tuned").sum() == N_OWN
    for form in ("crossdiff", "dictionary_learning", "saelens"):
        out = f"export.folder={tmp_path}/{form}"
        asked = ("action=export", "export.what=checkpoint", f"export.format={form}", out)
        assert typed(monkeypatch, *given, *asked) == 0
        read = [
            f"+comparison.{side}.crosscoder={tmp_path}/{form}/{name}_1"
            for side, name in (("reference", "old"), ("treatment", "new"))
        ]
        again = tmp_path / f"from_{form}"
        assert typed(monkeypatch, *given, *read, f"results_dir={again}") == 0
        assert (again / "deltas.csv").read_bytes() == (own / "deltas.csv").read_bytes(), form
        for name, table in calls(own).items():
            pd.testing.assert_frame_equal(table, calls(again)[name])
    refused = ("action=export", "export.what=checkpoint", "export.format=neelnanda")
    assert typed(monkeypatch, *given, *refused) == 2
    assert "no threshold, and this one keeps codes above" in capfd.readouterr().err
