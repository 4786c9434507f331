"""Running a harvest shard by shard, alone or beside other processes."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, replace
from io import TextIOWrapper
from typing import Any

import torch
from torch import Tensor

from crossdiff.data.harvest.checks import (
    NotFiniteError,
    check_tokenizer,
    checked_model,
    named,
    refuse_not_finite,
)
from crossdiff.data.harvest.job import HarvestJob, PassCounts
from crossdiff.data.harvest.write import RECORD, CorpusShard, layer_tensors, write_layer, write_record
from crossdiff.io.progress import bar, show_notices
from crossdiff.io.tables import read_json, write_json
from crossdiff.models.load import TruncatedModel, weights_read

_POLL_S = 0.5


def run_job(job: HarvestJob, *, n_workers: int = 1, model: TruncatedModel | None = None) -> dict[str, Any]:
    """Harvest the missing shards, then write the records; returns counts and rates.

    `model`: one that is loaded already.
    """
    if _is_finished(job):
        return _figures(job, n_new=0, seconds=0.0)
    notices = check_tokenizer(job)
    weights, about_weights = weights_read(job.model, job.path)
    show_notices(f"harvest {job.model.name}", notices := [*notices, *about_weights])
    job.work.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    todo = _todo(job)
    if n_workers > 1 and len(todo) > 1:
        _run_workers(job, min(n_workers, len(todo)))
    while rest := _todo(job):
        model = model or checked_model(job)
        if not harvest_shards(job, model, rest):
            time.sleep(_POLL_S)
    return _finish(job, notices, weights, seconds=time.perf_counter() - started, n_new=len(todo))


def run_part(job: HarvestJob) -> int:
    """Harvest shards that no other process has claimed, without the records; returns shards written."""
    check_tokenizer(job)
    job.work.mkdir(parents=True, exist_ok=True)
    todo = _todo(job)
    return harvest_shards(job, checked_model(job), todo) if todo else 0


def missing_shards(job: HarvestJob) -> list[CorpusShard]:
    """Shards for which `run_job` would run the model."""
    return [] if _is_finished(job) else _todo(job)


def harvest_shards(job: HarvestJob, model: TruncatedModel, shards: list[CorpusShard]) -> int:
    """Harvest the unclaimed `shards`; ValueError that names the document of a NaN activation."""
    try:
        return _harvest_shards(job, model, shards)
    except NotFiniteError as error:
        raise named(error, job, model) from None


def _is_finished(job: HarvestJob) -> bool:
    """Whether the records exist, as after a kill right before publishing."""
    paths = [job.folder / f"layer_{layer}" / RECORD for layer in job.layers]
    return all(path.is_file() and read_json(path).get("job") == job.origin for path in paths)


def _todo(job: HarvestJob) -> list[CorpusShard]:
    return [shard for shard in job.shards if not job.is_done(shard)]


def _harvest_shards(job: HarvestJob, model: TruncatedModel, shards: list[CorpusShard]) -> int:
    """Forward passes in this thread, writing in another, at most one shard behind."""
    harvester = job.harvester(model)
    n_written = 0
    pending: Future[None] | None = None
    total = sum(shard.n_rows for shard in shards)
    with (
        ThreadPoolExecutor(1, thread_name_prefix="write") as pool,
        bar(total=total, description=f"harvest {job.model.name}", unit="tok", enabled=job.progress) as shown,
    ):
        for shard in shards:
            lock = job.claim(shard)
            if lock is None:
                continue
            if job.is_done(shard):
                lock.close()
                continue
            counts = PassCounts()
            by_layer = harvester.shard(job.token_set, shard, counts)
            shown.update(shard.n_rows)
            if pending is not None:
                pending.result()
            pending = pool.submit(_write, job, shard, by_layer, counts, lock)
            n_written += 1
        if pending is not None:
            pending.result()
    return n_written


def _write(
    job: HarvestJob,
    shard: CorpusShard,
    by_layer: Mapping[int, Tensor],
    counts: PassCounts,
    lock: TextIOWrapper,
) -> None:
    """Write every layer's file, then the receipt, then release the lock."""
    with lock:
        hashes = {}
        for layer, x in by_layer.items():
            tensors = layer_tensors(x, shard, job.token_set, storage=job.storage)
            refuse_not_finite(job, shard, layer, x, tensors["norm"])
            name = f"layer_{layer}/{shard.file}"
            hashes[name] = write_layer(job.folder, layer, shard, tensors, job.token_set)
        write_json({"job": job.identity, "sha256": hashes, "counts": asdict(counts)}, job.receipt(shard))


def _run_workers(job: HarvestJob, n_workers: int) -> None:
    """Run processes that take shards until none is free; the caller does those of a dead one."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["crossdiff.data.harvest.run", "transformers"])
    workers = [context.Process(target=_worker, args=(_for_worker(job, n),)) for n in range(n_workers)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


def _for_worker(job: HarvestJob, number: int) -> HarvestJob:
    """The job on worker `number`'s accelerator; the first worker alone shows progress."""
    device = job.device
    if device == "cuda":
        device = f"cuda:{number % max(1, torch.cuda.device_count())}"
    return replace(job, device=device, progress=job.progress and number == 0)


def _worker(job: HarvestJob) -> None:
    """`run_part`; a lasting fault (disk full, NaN) meets the caller too, who reports it."""
    try:
        run_part(job)
    except (OSError, ValueError) as error:
        print(f"a worker of harvest {job.model.name} stopped: {error}", flush=True)


def _finish(
    job: HarvestJob, notices: list[str], weights: str, *, seconds: float, n_new: int
) -> dict[str, Any]:
    receipts = [read_json(job.receipt(shard)) for shard in job.shards]
    hashes = {name: digest for receipt in receipts for name, digest in receipt["sha256"].items()}
    counts = [receipt["counts"] for receipt in receipts]
    n_padding, n_tokens = sum(count["padding"] for count in counts), job.token_set.n_tokens
    details = {
        "job": job.origin,
        "model": {**job.model.model_dump(), "fingerprint": job.fingerprint},
        "weights": weights,
        "storage": job.storage,
        "padding_share": n_padding / (n_padding + n_tokens),
        "splits": [split for count in counts for split in count["splits"]],
        "notices": notices,
    }
    write_record(
        job.folder, job.token_set, layers=job.layers, shards=job.shards, hashes=hashes, details=details
    )
    for path in [*job.work.iterdir(), *job.folder.glob("layer_*/.*.part")]:
        path.unlink()
    job.work.rmdir()
    return _figures(job, n_new=n_new, seconds=seconds)


def _figures(job: HarvestJob, *, n_new: int, seconds: float) -> dict[str, Any]:
    """Counts and rates of a harvest whose records are written."""
    record = read_json(job.folder / f"layer_{job.layers[0]}" / RECORD)
    n_tokens = record["n_rows"]
    return {
        "n_tokens": n_tokens,
        "n_shards": len(job.shards),
        "n_shards_harvested": n_new,
        "layers": list(job.layers),
        "storage": record["storage"],
        "weights": record["weights"],
        "padding_share": record["padding_share"],
        "n_splits": len(record["splits"]),
        "tokens_per_s": n_tokens / seconds if n_new and n_new == len(job.shards) else None,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None,
        "notices": record["notices"],
    }
