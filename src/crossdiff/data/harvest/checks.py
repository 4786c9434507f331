"""What is checked before and during a harvest: tokenizer, vocabulary, packing, finite numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.data.harvest.job import HarvestJob
from crossdiff.data.harvest.write import CorpusShard
from crossdiff.models.load import TruncatedModel
from crossdiff.models.tokenizers import has_tokenizer, load_tokenizer, refuse_other_tokenizer

_PACKING_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 1e-1}
"""Relative error by which packing may move an activation; foreign context moves it by much more."""


def check_tokenizer(job: HarvestJob) -> list[str]:
    """Refuse a model whose tokenizer gives other ids than the token set's; returns notices."""
    folder = Path(job.path)
    if folder.is_dir() and not has_tokenizer(folder):
        return [f"{job.model.name} has no tokenizer of its own; its token ids are taken to be the same"]
    own = load_tokenizer(job.path, revision=job.model.revision, trust_remote_code=job.model.trust_remote_code)
    return refuse_other_tokenizer(
        job.token_set.tokenizer, own, reference_name="the token set", other_name=job.model.name
    )


def check_model(job: HarvestJob, model: TruncatedModel) -> None:
    """Refuse a model with too few embeddings, or one that mixes documents packed into one row."""
    highest = int(job.token_set.ids.max())
    if highest >= model.vocab_size:
        raise ValueError(
            f"token id {highest} is outside the {model.vocab_size:,} embeddings of {job.model.path}; "
            "the models of a comparison need one tokenizer: choose models of one family"
        )
    error = _packing_error(job, model) if job.source.batching == "pack" else 0.0
    if error > _PACKING_TOLERANCE[job.model.dtype]:
        raise ValueError(
            f"{job.model.path} mixes documents that are packed into one row (activations move by "
            f"{error:.1%}); use source.batching=bucket"
        )


def _packing_error(job: HarvestJob, model: TruncatedModel) -> float:
    """Relative change of documents' activations when others lie before them in their row, over two rows."""
    ids = job.token_set.ids[: min(48, job.token_set.n_tokens)].long().to(job.device)
    rows = torch.stack([torch.cat([ids, ids.flip(0)]), torch.cat([ids.flip(0), ids])])
    positions = torch.arange(len(ids), device=job.device).repeat(2, 2)
    layer = job.layers[-1]
    together = model.outputs(rows, positions, layers=[layer])[layer][:, len(ids) :].double()
    alone = torch.stack([model.outputs(x[None], None, layers=[layer])[layer][0] for x in (ids.flip(0), ids)])
    return float((together - alone.double()).norm() / alone.double().norm())


class NotFiniteError(Exception):
    """Rows with NaN or infinity at `layer`, in these documents and perhaps those packed with them."""

    def __init__(self, layer: int, documents: list[int]) -> None:
        super().__init__(f"layer {layer}, documents {documents}")
        self.layer = layer
        self.documents = documents


def refuse_not_finite(job: HarvestJob, shard: CorpusShard, layer: int, x: Tensor, norm: Tensor) -> None:
    """Raise where a stored row of a shard is not finite; `norm` are the norms of the stored rows."""
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


def refuse_nan_documents(
    job: HarvestJob, model: TruncatedModel, documents: Int[Tensor, " document"], found: Mapping[int, Tensor]
) -> None:
    """Raise where rows of `documents` that are not stored (source=live) are not finite; layer -> rows."""
    owner = documents.repeat_interleave(job.token_set.offsets.diff()[documents])
    for layer, x in found.items():
        bad = ~x.isfinite().all(dim=1)
        if bad.any():
            raise named(NotFiniteError(layer, owner[bad].unique().tolist()), job, model)


def named(error: NotFiniteError, job: HarvestJob, model: TruncatedModel) -> ValueError:
    """The message for the user: the first of the documents that is not finite by itself."""
    alone = (d for d in error.documents if not _is_finite_alone(job, model, error.layer, d))
    culprit = next(alone, error.documents[0])
    return ValueError(
        f"the activation of {job.model.name} at layer {error.layer} holds NaN or infinite values "
        f"in document {job.token_set.document_ids[culprit]!r}; check the weights, or use dtype=float32"
    )


def _is_finite_alone(job: HarvestJob, model: TruncatedModel, layer: int, document: int) -> bool:
    """Whether a document is finite by itself: a masked NaN spreads to what is packed beside it."""
    first, last = job.token_set.offsets[document : document + 2].tolist()
    ids = job.token_set.ids[first:last].long()[None].to(job.device)
    return bool(model.outputs(ids, None, layers=[layer])[layer].isfinite().all())
