from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from crossdiff.data.tokens import TokenSet
from experiments.bench.members import MembersWork, write_activations
from experiments.bench.memory import peak_mb
from experiments.bench.step import main

SIZES = ["d_model=16", "n_latents=256", "k=4", "batch=64", "rounds=1", "threads=1"]


def test_the_benchmark_reports_both_sides_of_one_run() -> None:
    found = json.loads(json.dumps(main([*SIZES, "memory=false"])))
    for name in ("encoder_fp32", "encoder_bf16", "dense", "step_fp32", "step_bf16", "auxk_fp32"):
        assert found[f"{name}_s"] > 0
        assert found["ratio"][name] > 0
    assert found["ratio"]["encoder_fp32"] == 1
    assert {"encoder product", "candidates", "decode", "backward", "adam"} <= found["parts_ms"][
        "step_fp32"
    ].keys()
    assert found["machine"]["cores"] >= 1


def test_members_of_tiny_sizes_have_tokens_to_train_on_and_tokens_held_out(tmp_path: Path) -> None:
    write_activations(MembersWork(d_model=4, n_latents=16, k=2, batch=8, members=2, steps=2), tmp_path)
    held_out = TokenSet.open(tmp_path / "tokens").held_out
    assert int((~held_out).sum()) > 4000
    assert int(held_out.sum()) > 8


@pytest.mark.slow
def test_memory_is_measured_in_a_process_of_its_own() -> None:
    sizes = {"d_model": 16, "n_latents": 64, "k": 2, "batch": 8, "n_models": 2, "threads": 1}
    assert peak_mb("step", sizes, steps=1) > 50


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_message() -> None:
    with pytest.raises(ValueError, match="this machine has no CUDA GPU; give device=cpu"):
        main([*SIZES, "device=cuda"])


def test_an_unknown_size_is_refused() -> None:
    with pytest.raises(ValueError, match="n_latent"):
        main(["n_latent=3"])
