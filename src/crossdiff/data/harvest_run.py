"""Running a harvest: shard by shard into a folder, continuing where a killed run stopped."""

from __future__ import annotations

import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossdiff.data.harvest_files import (
    CorpusShard,
    Storage,
    corpus_shards,
    layer_tensors,
    write_layer,
    write_record,
)
from crossdiff.data.harvester import Harvester, PassCounts
from crossdiff.data.settings import CacheSource
from crossdiff.data.tokens import TokenSet
from crossdiff.io.progress import bar
from crossdiff.io.tables import read_json, write_json
from crossdiff.models.load import TruncatedModel, load_truncated
from crossdiff.models.pair import ModelSettings
from crossdiff.models.tokenizers import has_tokenizer, load_tokenizer, refuse_other_tokenizer


@dataclass(frozen=True)
class HarvestJob:
    """One model, its layers, the tokens, and the folder to fill."""

    model: ModelSettings
    path: str
    fingerprint: str
    layers: tuple[int, ...]
    source: CacheSource
    token_set: TokenSet
    folder: Path
    device: str = "cpu"
    progress: bool = True

    @cached_property
    def storage(self) -> Storage:
        """Number format of the shards."""
        return self.model.dtype if self.source.storage == "model" else self.source.storage

    @cached_property
    def shards(self) -> list[CorpusShard]:
        """All corpus shards of the token set."""
        return corpus_shards(self.token_set, shard_tokens=self.source.shard_tokens)

    def receipt(self, shard: CorpusShard) -> Path:
        """Small file that says that every layer of a shard is on disk."""
        return self.folder / "progress" / f"{shard.index:05d}.json"

    def is_done(self, shard: CorpusShard) -> bool:
        """Whether the shard was written by a job of the same inputs."""
        path = self.receipt(shard)
        return path.is_file() and read_json(path)["job"] == self.identity

    @cached_property
    def identity(self) -> dict[str, Any]:
        """What a draft has to agree on to be continued."""
        return {
            "token_hash": self.token_set.token_hash,
            "fingerprint": self.fingerprint,
            "model": self.model.identity(),
            "layers": list(self.layers),
            "source": self.source.identity(),
        }


def run_job(job: HarvestJob) -> dict[str, Any]:
    """Harvest the shards that are not done yet, then write the record; returns counts and rates."""
    notices = check_tokenizer(job)
    (job.folder / "progress").mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    todo = [shard for shard in job.shards if not job.is_done(shard)]
    model = load_truncated(job.model, job.path, layers=job.layers, device=job.device) if todo else None
    if model is not None:
        _check_ids(job, model)
        harvest_shards(job, model, todo)
    return _finish(job, model, notices, seconds=time.perf_counter() - started, n_new=len(todo))


class NotFiniteError(Exception):
    """Rows with NaN or infinity at `layer`, in these documents and perhaps those packed with them."""

    def __init__(self, layer: int, documents: list[int]) -> None:
        super().__init__(f"layer {layer}, documents {documents}")
        self.layer = layer
        self.documents = documents


def harvest_shards(job: HarvestJob, model: TruncatedModel, shards: list[CorpusShard]) -> None:
    """Harvest `shards`; NaN or infinite activations are traced to their document and refused."""
    try:
        _harvest_shards(job, model, shards)
    except NotFiniteError as error:
        alone = (d for d in error.documents if not _is_finite_alone(job, model, error.layer, d))
        culprit = next(alone, error.documents[0])
        raise ValueError(
            f"the activation of {job.model.name} at layer {error.layer} holds NaN or infinite values "
            f"in document {job.token_set.document_ids[culprit]!r}; check the weights, or use dtype=float32"
        ) from None


def _is_finite_alone(job: HarvestJob, model: TruncatedModel, layer: int, document: int) -> bool:
    """Whether a document is finite by itself: a masked NaN spreads to what is packed beside it."""
    first, last = job.token_set.offsets[document : document + 2].tolist()
    ids = job.token_set.ids[first:last].long()[None].to(job.device)
    return bool(model.outputs(ids, None, layers=[layer])[layer].isfinite().all())


def _harvest_shards(job: HarvestJob, model: TruncatedModel, shards: list[CorpusShard]) -> None:
    """Forward passes here, writing in a thread that is at most one shard behind."""
    harvester = Harvester(
        model=model,
        layers=job.layers,
        batching=job.source.batching,
        batch_tokens=job.source.batch_tokens,
        context=int(job.token_set.offsets.diff().max()),
        device=job.device,
    )
    pending: Future[None] | None = None
    with (
        ThreadPoolExecutor(1, thread_name_prefix="write") as pool,
        bar(
            total=sum(shard.n_rows for shard in shards),
            description=f"harvest {job.model.name}",
            unit="tok",
            enabled=job.progress,
        ) as shown,
    ):
        for shard in shards:
            counts = PassCounts()
            found = harvester.shard(job.token_set, shard, counts)
            shown.update(shard.n_rows)
            if pending is not None:
                pending.result()
            pending = pool.submit(_write, job, shard, found, counts)
        if pending is not None:
            pending.result()


def _write(job: HarvestJob, shard: CorpusShard, found: Mapping[int, Tensor], counts: PassCounts) -> None:
    hashes = {}
    for layer, x in found.items():
        tensors = layer_tensors(x, shard, job.token_set, storage=job.storage)
        _refuse_not_finite(job, shard, layer, x, tensors["norm"])
        hashes[f"layer_{layer}/{shard.file}"] = write_layer(job.folder, layer, shard, tensors, job.token_set)
    write_json({"job": job.identity, "sha256": hashes, "counts": asdict(counts)}, job.receipt(shard))


def _refuse_not_finite(job: HarvestJob, shard: CorpusShard, layer: int, x: Tensor, norm: Tensor) -> None:
    bad = (~norm.isfinite()).nonzero().flatten()
    if not len(bad):
        return
    documents = job.token_set.document_of(shard.first_row + bad).unique().tolist()
    if not x[bad].isfinite().all():
        raise NotFiniteError(layer, documents)
    raise ValueError(
        f"the activation of {job.model.name} at layer {layer} exceeds the range of {job.storage} in document "
        f"{job.token_set.document_ids[documents[0]]!r}; use source.storage=bfloat16 or float32"
    )


def check_tokenizer(job: HarvestJob) -> list[str]:
    """Refuse a model whose tokenizer gives other ids than the token set's; returns notices."""
    folder = Path(job.path)
    if folder.is_dir() and not has_tokenizer(folder):
        return [f"{job.model.name} has no tokenizer of its own; its token ids are taken to be the same"]
    own = load_tokenizer(job.path, revision=job.model.revision, trust_remote_code=job.model.trust_remote_code)
    return refuse_other_tokenizer(
        job.token_set.tokenizer, own, reference_name="the token set", other_name=job.model.name
    )


def _check_ids(job: HarvestJob, model: TruncatedModel) -> None:
    highest = int(job.token_set.ids.max())
    if highest >= model.vocab_size:
        raise ValueError(
            f"token id {highest} is outside the {model.vocab_size:,} embeddings of {job.model.path}; "
            "the models of a comparison need one tokenizer: choose models of one family"
        )


def _finish(
    job: HarvestJob, model: TruncatedModel | None, notices: list[str], *, seconds: float, n_new: int
) -> dict[str, Any]:
    receipts = [read_json(job.receipt(shard)) for shard in job.shards]
    hashes = {name: digest for receipt in receipts for name, digest in receipt["sha256"].items()}
    counts = [receipt["counts"] for receipt in receipts]
    n_padding = sum(count["padding"] for count in counts)
    share = n_padding / (n_padding + job.token_set.n_tokens)
    splits = [split for count in counts for split in count["splits"]]
    details = {
        "model": {**job.model.model_dump(), "fingerprint": job.fingerprint},
        "storage": job.storage,
        "padding_share": share,
        "splits": splits,
        "notices": notices,
    }
    write_record(
        job.folder, job.token_set, layers=job.layers, shards=job.shards, hashes=hashes, details=details
    )
    for path in (job.folder / "progress").iterdir():
        path.unlink()
    (job.folder / "progress").rmdir()
    n_tokens = job.token_set.n_tokens
    return {
        "n_tokens": n_tokens,
        "n_shards": len(job.shards),
        "n_shards_harvested": n_new,
        "layers": list(job.layers),
        "storage": job.storage,
        "padding_share": share,
        "n_splits": len(splits),
        "commit": model.commit if model is not None else None,
        "tokens_per_s": n_tokens / seconds if n_new == len(job.shards) else None,
        "peak_gpu_mb": torch.cuda.max_memory_allocated() / 1e6 if torch.cuda.is_available() else None,
        "notices": notices,
    }
