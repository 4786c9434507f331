"""Several crosscoders of one pair from one reader, against as many trainings alone: cost and bytes read."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser
from crossdiff.core.sparsity import BatchTopK
from crossdiff.data import paired_activations
from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.paired_batch import WindowReader
from crossdiff.training.members import train_together
from crossdiff.training.run import fit
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource
from crossdiff.training.trainer import RunFolder, TrainingRun
from experiments.bench.harvest_work import make_tokens

N_WINDOWS = 4
"""Windows in which one order of all members is read, as a corpus that does not fit into memory is."""

LEAST_TOKENS = 8192
"""With fewer, all documents may be held out, or none."""

SHAREABLE = [
    (PairedActivations, "training_batch"), (WindowReader, "_load"), (Normaliser, "normalise")
]  # fmt: skip


@dataclass(frozen=True)
class MembersWork:
    """Sizes of the trainings: `steps` batches each, about one epoch of the activations written."""

    d_model: int
    n_latents: int
    k: int
    batch: int
    members: int
    steps: int


def compare(work: MembersWork, *, rounds: int) -> dict[str, Any]:
    """Medians of interleaved rounds, alone and together, with own orders and one: seconds, bytes read."""
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        write_activations(work, folder)
        contenders = {
            f"{how}_{order}": partial(
                _train, work, folder, together=how == "together", one_order=order != "own_orders"
            )
            for order in ("own_orders", "one_order")
            for how in ("alone", "together")
        }
        samples: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
        read: dict[str, int] = {}
        for number in range(rounds + 1):
            for name, run in contenders.items():
                wall, cpu = time.perf_counter(), time.process_time()
                read[name] = run()
                if number:  # the first round warms up
                    samples[name].append((time.perf_counter() - wall, time.process_time() - cpu))
        could_share = _share_of_reading(contenders["alone_one_order"])
    wall, cpu = (
        {name: statistics.median(run[n] for run in runs) for name, runs in samples.items()} for n in (0, 1)
    )
    return {
        "members_s": wall,
        "members_ratio": _ratios(wall),
        "members_cpu_ratio": _ratios(cpu),
        "members_read_mb": {name: n_bytes / 1e6 for name, n_bytes in read.items()},
        "members_read_ratio": _ratios(read),
        "members_could_share": could_share,
    }


def _share_of_reading(train: Callable[[], int]) -> float:
    """Share of a training's CPU time that is reading and normalising: all that members could share."""
    spent = 0.0
    before = {(kind, name): getattr(kind, name) for kind, name in SHAREABLE}

    def timed(work: Callable[..., Any]) -> Callable[..., Any]:
        def working(*given: Any, **named: Any) -> Any:
            nonlocal spent
            began = time.thread_time()
            done = work(*given, **named)
            spent += time.thread_time() - began
            return done

        return working

    try:
        for (kind, name), work in before.items():
            setattr(kind, name, timed(work))
        began = time.process_time()
        train()
        return spent / (time.process_time() - began)
    finally:
        for (kind, name), work in before.items():
            setattr(kind, name, work)


def _ratios(figures: Mapping[str, float]) -> dict[str, float]:
    return {
        order: figures[f"together_{order}"] / figures[f"alone_{order}"]
        for order in ("own_orders", "one_order")
    }


def write_activations(work: MembersWork, folder: Path) -> None:
    """Random tokens and their activations under two models."""
    n_tokens = max(round(1.1 * work.batch * work.steps), LEAST_TOKENS)  # some are held out
    tokens = make_tokens(folder / "tokens", n_tokens=n_tokens, context=min(1024, n_tokens // 16))
    for seed, name in enumerate(("base", "tuned")):
        generator = torch.Generator().manual_seed(seed)
        x = torch.randn(tokens.n_tokens, work.d_model, generator=generator).bfloat16()
        write_harvest(folder / name, tokens, {0: x}, storage="bfloat16")


def _train(work: MembersWork, folder: Path, *, together: bool, one_order: bool) -> int:
    """Train all members; returns the bytes of activations that were read."""
    harvests = [folder / "base", folder / "tuned"]
    source = PairedActivations.open(folder / "tokens", harvests, layer=0)
    n_bytes = source.n_rows * 2 * 2 * work.d_model
    before, counter = paired_activations.WINDOW_BYTES, _Counter()
    paired_activations.WINDOW_BYTES = -(-n_bytes // N_WINDOWS) if one_order else 2 * n_bytes
    try:
        with TemporaryDirectory() as scratch:
            trainings = [
                partial(_one, work, Path(scratch) / f"{seed}", seed=seed, order_seed=0 if one_order else None)
                for seed in range(work.members)
            ]
            if together:
                train_together(counter.watch(source), trainings)
            else:
                for training in trainings:
                    training(counter.watch(PairedActivations.open(folder / "tokens", harvests, layer=0)))
    finally:
        paired_activations.WINDOW_BYTES = before
    return counter.n_bytes


def _one(
    work: MembersWork, folder: Path, source: ActivationSource, *, seed: int, order_seed: int | None
) -> None:
    settings = TrainingSettings(
        n_steps=work.steps, batch_size=work.batch, order_seed=order_seed, log_every=work.steps,
        validate_every=work.steps, validate_tokens=work.batch, threshold_batches=4,
    )  # fmt: skip
    run = TrainingRun(
        dictionary=DictionarySettings(n_latents=work.n_latents),
        sparsity=BatchTopK(k=work.k),
        training=settings,
        seed=seed,
        progress=False,
    )
    fit(run, source, RunFolder(folder))


class _Counter:
    """Adds up what the layers of sources read."""

    def __init__(self) -> None:
        self.n_bytes = 0

    def watch(self, source: PairedActivations) -> PairedActivations:
        """The same source, counted from here on."""
        source.layers = [_Counted(layer, self) for layer in source.layers]  # type: ignore[misc]
        return source


class _Counted:
    """A layer whose reading is counted."""

    def __init__(self, layer: Any, counter: _Counter) -> None:
        self._layer, self._counter = layer, counter

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layer, name)

    def read_spans(self, spans: Any, buffer: Any = None) -> Any:
        """As the layer does."""
        rows = self._layer.read_spans(spans, buffer)
        self._counter.n_bytes += rows[0].nbytes
        return rows
