"""What loading costs: batches beside a toy training step, and the memory of a model in part and whole."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import CacheSource
from crossdiff.io.environment import peak_memory_mb
from experiments.bench.contenders import Workload as StepWorkload
from experiments.bench.contenders import sparse_step
from experiments.bench.harvest_work import Workload, make_tokens

TOY = StepWorkload(d_model=96, n_latents=1024, k=24, batch=1024)
"""Sizes of conf/dictionary/toy.yaml, conf/sparsity/toy.yaml and conf/training/toy.yaml."""
N_BLOCKS, LAYER = 42, 20


def toy_loading(folder: Path, *, rounds: int, n_tokens: int = 200_000) -> dict[str, float]:
    """Median seconds of a shuffled training batch and of the toy training step that it feeds, interleaved."""
    tokens = make_tokens(folder / "tokens", n_tokens=n_tokens, context=256)
    generator = torch.Generator().manual_seed(0)
    for name in ("base", "tuned"):
        write_harvest(folder / name, tokens, {0: torch.randn(tokens.n_tokens, 96, generator=generator)})
    data = PairedActivations.open(folder / "tokens", [folder / "base", folder / "tuned"], layer=0)
    step = sparse_step(TOY, encode="float32", backend="auto")
    loading, stepping = [], []
    for number in range(10 * rounds + 2):
        start = time.perf_counter()
        data.training_batch(number, seed=0, batch_size=TOY.batch)
        middle = time.perf_counter()
        step()
        if number > 1:
            loading.append(middle - start)
            stepping.append(time.perf_counter() - middle)
    data.close()
    load_s, step_s = statistics.median(loading), statistics.median(stepping)
    return {"toy_load_s": load_s, "toy_step_s": step_s, "toy_load_of_step": load_s / step_s}


def model_memory(folder: Path, *, d_model: int = 512) -> dict[str, float]:
    """Peak MB above the bare imports: a harvest at block 20 of 42 blocks, and the whole model's forward.

    The same few tokens go through both, so that the weights dominate.
    """
    work = _small_corpus(folder, d_model)
    work.prepare()
    program = "import sys; from experiments.bench.harvest_load import child; child(*sys.argv[1:])"
    figures = {}
    for kind in ("harvest", "full"):
        command = [sys.executable, "-c", program, str(folder), str(d_model), kind]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        figures[f"model_peak_mb_{kind}"] = float(done.stdout.strip().splitlines()[-1])
    figures["model_weights_mb"] = (folder / "model" / "model.safetensors").stat().st_size / 1e6
    figures["model_peak_ratio"] = figures["model_peak_mb_harvest"] / figures["model_peak_mb_full"]
    return figures


def _small_corpus(folder: Path, d_model: int) -> Workload:
    return Workload(
        folder=folder, d_model=d_model, n_blocks=N_BLOCKS, layer=LAYER,
        n_tokens=64, context=32, dtype="float32", source=CacheSource(),
    )  # fmt: skip


def child(folder: str, d_model: str, kind: str) -> None:
    """Run one of the two and print by how many MB that raised this process's peak."""
    from transformers.models.gemma2 import modeling_gemma2  # noqa: F401  60 MB, before the first reading

    work = _small_corpus(Path(folder), int(d_model))
    before = peak_memory_mb()
    if kind == "harvest":
        work.harvest()
    else:
        work.full_pass(work.full_model())()
    print(peak_memory_mb() - before)
