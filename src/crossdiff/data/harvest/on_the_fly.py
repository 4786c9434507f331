"""Activations from a running model: the rows of a harvest, computed when asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.harvest.checks import check_tokenizer, checked_model, refuse_nan_documents
from crossdiff.data.harvest.job import Harvester, HarvestJob, PassCounts
from crossdiff.data.harvest.write import write_record
from crossdiff.data.moments import Moments, row_groups
from crossdiff.data.settings import LiveSource
from crossdiff.data.shard_files import ShardFile, write_shard
from crossdiff.data.tokens import TokenSet
from crossdiff.io.progress import show_notices, track
from crossdiff.models.checkpoint import DTYPES
from crossdiff.models.load import weights_read
from crossdiff.models.pair import ModelSettings

MOMENTS = "moments.safetensors"


@dataclass(frozen=True)
class LiveLayer:
    """`LayerRows` of a model that runs when rows are asked for, one forward pass at a time."""

    folder: Path
    layer: int
    record: dict[str, Any]
    tokens: Path
    device: str

    @cached_property
    def token_set(self) -> TokenSet:
        """The tokens that the model reads."""
        return TokenSet.open(self.tokens)

    @property
    def token_hash(self) -> str:
        """Hash of the artifact's token set."""
        return self.record["token_hash"]

    @property
    def d_model(self) -> int:
        """Width of a row."""
        return self.record["live"]["d_model"]

    @property
    def n_rows(self) -> int:
        """Number of tokens of the token set."""
        return self.record["n_rows"]

    def place(self, row: int) -> str:
        """The artifact that names the running model, for messages."""
        return f"the model of {self.folder} (source=live) at token row {row}"

    @property
    def dtype(self) -> torch.dtype:
        """The model's own dtype."""
        return DTYPES[self.record["live"]["model"]["dtype"]]

    def moments(self) -> Moments:
        """Moments over the harvest step's sample of documents."""
        shard = ShardFile.open(self.folder / f"layer_{self.layer}" / MOMENTS)
        return Moments.from_tensors(shard.tensors(Moments.NAMES))

    def norms(self) -> Float[Tensor, " row"]:
        """Always raises: norms need a pass over all tokens."""
        raise ValueError(
            "mask.outlier_norm needs the norm of every row, which source=live does not keep; use source=cache"
        )

    def rows(self, rows: Int[Tensor, " row"]) -> Float[Tensor, "row d_model"]:
        """Float32 rows in the order given; their documents are run whole."""
        documents = self.token_set.document_of(rows).unique()
        offsets = self.token_set.offsets
        x = self._run(documents)
        lengths = offsets[documents + 1] - offsets[documents]
        starts = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        index = torch.searchsorted(documents, self.token_set.document_of(rows))
        return x[starts[index] + rows - offsets[documents[index]]].float()

    def read_spans(
        self, spans: Sequence[tuple[int, int]], buffer: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """Rows of spans of whole documents, in the model's dtype."""
        boundaries = torch.tensor(spans)
        first, last = torch.searchsorted(self.token_set.offsets, boundaries).unbind(1)
        ranges = [torch.arange(int(a), int(b)) for a, b in zip(first, last, strict=True)]
        return self._run(torch.cat(ranges)), None

    @cached_property
    def _lock(self) -> threading.Lock:
        return threading.Lock()

    @cached_property
    def _job(self) -> HarvestJob:
        live = self.record["live"]
        return HarvestJob(
            model=ModelSettings(**live["model"]),
            path=live["path"],
            fingerprint=live["fingerprint"],
            layers=(self.layer,),
            source=LiveSource(**live["source"]),
            tokens=self.tokens,
            folder=self.folder,
            device=self.device,
        )

    @cached_property
    def _harvester(self) -> Harvester:
        return self._job.harvester(checked_model(self._job))

    def _run(self, documents: Int[Tensor, " document"]) -> Float[Tensor, "row d_model"]:
        with self._lock:
            by_layer = self._harvester.documents(self.token_set, documents, PassCounts())
            refuse_nan_documents(self._job, self._harvester.model, documents, by_layer)
            return by_layer[self.layer]


def sample_documents(token_set: TokenSet, n_tokens: int) -> Int[Tensor, " document"]:
    """Evenly spaced documents with about `n_tokens` tokens, or all documents."""
    share = min(1.0, n_tokens / token_set.n_tokens)
    count = max(1, round(share * token_set.n_documents))
    return torch.from_numpy(
        np.linspace(0, token_set.n_documents - 1, count).round().astype(np.int64)
    ).unique()


def run_live_job(job: HarvestJob) -> dict[str, Any]:
    """Check the model and compute moments over a sample; the artifact has no activation."""
    assert isinstance(job.source, LiveSource)
    notices = check_tokenizer(job)
    weights, about_weights = weights_read(job.model, job.path)
    show_notices(f"harvest {job.model.name}", notices := [*notices, *about_weights])
    model = checked_model(job)
    documents = sample_documents(job.token_set, job.source.statistics_tokens)
    hashes = _write_moments(job, job.harvester(model), documents)
    live = {
        "model": job.model.model_dump(),
        "path": job.path,
        "fingerprint": job.fingerprint,
        "source": job.source.model_dump(),
        "d_model": model.d_model,
    }
    details = {"live": live, "storage": "live", "weights": weights, "notices": notices}
    write_record(job.folder, job.token_set, layers=job.layers, shards=[], hashes=hashes, details=details)
    return {
        "n_tokens": job.token_set.n_tokens,
        "layers": list(job.layers),
        "storage": "live",
        "weights": weights,
        "n_documents_sampled": len(documents),
        "notices": notices,
    }


def _write_moments(
    job: HarvestJob, harvester: Harvester, documents: Int[Tensor, " document"]
) -> dict[str, str]:
    """Moments of every layer over some documents; returns the sha256 of every file."""
    token_set, offsets = job.token_set, job.token_set.offsets
    moments: dict[int, Moments] = {}
    for part in track(documents.split(64), description=f"moments {job.model.name}", enabled=job.progress):
        by_layer = harvester.documents(token_set, part, PassCounts())
        refuse_nan_documents(job, harvester.model, part, by_layer)
        rows = torch.cat([torch.arange(int(offsets[d]), int(offsets[d + 1])) for d in part.tolist()])
        group = row_groups(token_set.kind[rows], token_set.held_out[rows])
        for layer, x in by_layer.items():
            new = Moments.of(x, group)
            moments[layer] = moments[layer].merge(new) if layer in moments else new
    hashes = {}
    for layer, merged in moments.items():
        path = job.folder / f"layer_{layer}" / MOMENTS
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"token_hash": token_set.token_hash, "layer": str(layer)}
        hashes[f"layer_{layer}/{MOMENTS}"] = write_shard(path, merged.tensors(), metadata=metadata)
    return hashes
