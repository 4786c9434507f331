"""Checks before and during a harvest: tokenizer, vocabulary, packing, finite numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.data.harvest.job import HarvestJob
from crossdiff.data.harvest.write import CorpusShard
from crossdiff.models.load import TruncatedModel
from crossdiff.models.tokenizers import (
    has_tokenizer,
    load_model_tokenizer,
    refuse_beyond,
    refuse_other_tokenizer,
    tokenizer_source,
)

_FOREIGN_TOLERANCE = {"float32": 1e-4, "float16": 3e-3, "bfloat16": 1e-2}
"""Largest mean relative change of a document's rows with other contents around it.

The compared passes have equal shapes and round alike, except for mixtures of experts, whose shapes depend on
the contents. A document that sees its neighbours changes by more.
"""
_SHAPE_TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 5e-2}
"""Largest mean relative difference from the document alone, whose pass rounds differently."""
_PROBE = 24
"""Tokens of the probed document; few, so that the rows right after a border have enough weight."""
_WIDEST = 4096
"""Tokens of the widest row that is probed."""


def check_tokenizer(job: HarvestJob) -> list[str]:
    """Notices on the model's tokenizer; ValueError where its ids differ from the token set's."""
    name = job.model.name
    source = tokenizer_source(job.model, job.path)
    if Path(source).is_dir() and not has_tokenizer(Path(source)):
        return [f"{name} has no tokenizer; its token ids are assumed to be the token set's"]
    tokenizer = load_model_tokenizer(job.model, job.path)
    notices = refuse_other_tokenizer(
        job.token_set.tokenizer, tokenizer, reference_name="the token set", other_name=name
    )
    known = torch.tensor(sorted(set(tokenizer.get_vocab().values())))
    unknown = job.token_set.ids[~torch.isin(job.token_set.ids, known)]
    if len(unknown):
        notices.append(
            f"{len(unknown):,} tokens of the corpus ({_shown(job, unknown)}) are not in the vocabulary of "
            f"{name}, which reads untrained embeddings for them"
        )
    return notices


def _shown(job: HarvestJob, ids: Int[Tensor, " token"]) -> str:
    return ", ".join(map(repr, job.token_set.token_names(ids.unique()[:4].tolist())))


def checked_model(job: HarvestJob) -> TruncatedModel:
    """The model's first blocks, checked by `check_model`."""
    model = job.load_model()
    check_model(job, model)
    return model


def check_model(job: HarvestJob, model: TruncatedModel) -> None:
    """ValueError for a model with too few embeddings, or with rows that depend on others of a batch.

    Padding is masked from here on for a model that reads it.
    """
    tokens = job.token_set
    refuse_beyond(
        tokens.ids,
        model.vocab_size,
        names=tokens.token_names,
        path=job.path,
    )
    if job.source.batching == "pack":
        error = _packing_error(job, model)
        if error:
            raise ValueError(
                f"{job.path} mixes documents that are packed into one row ({error}); "
                "use source.batching=bucket"
            )
    elif _padding_error(job, model):
        model.masks_padding = True
        error = _padding_error(job, model)
        if error:
            raise ValueError(
                f"{job.path} lets a token see later ones, even masked padding ({error}); choose a causal "
                "model"
            )


def _packing_error(job: HarvestJob, model: TruncatedModel) -> str | None:
    """How a packed row changes a document's activations, in words; None where it does not.

    The document follows another one, beside a row of one long document or of many short ones. Two passes
    that differ in these alone show their influence.
    """
    width = _width(job, model)
    length = min(_PROBE, width // 2)
    if length == 0:
        return None
    probe, others = _probe(job, length), _random_ids(job, model, (4, width))
    spans = [length, length, width - 2 * length]
    split = torch.cat([torch.arange(n) for n in spans])
    one, many = torch.arange(width), torch.arange(width) % length
    found = []
    for foreign, beside, positions in ((others[0], others[1], one), (others[2], others[3], many)):
        ids = torch.stack([foreign, beside])
        ids[0, length : 2 * length] = probe
        found.append(_outputs(job, model, ids, torch.stack([split, positions]))[0, length : 2 * length])
    return _moved(job, found, _outputs(job, model, probe[None], None)[0])


def _padding_error(job: HarvestJob, model: TruncatedModel) -> str | None:
    """`_packing_error` for a row that is padded at its end, with zeros or random ids."""
    longest = _width(job, model)
    length = min(_PROBE, longest - 1)
    if length <= 0:
        return None
    width = min(length + 8, longest)
    probe, others = _probe(job, length), _random_ids(job, model, (3, width))
    real = torch.ones(2, width, dtype=torch.int64)
    real[0, length:] = 0
    found = []
    for padding, beside in ((torch.zeros_like(others[0]), others[1]), (others[0], others[2])):
        ids = torch.stack([padding, beside])
        ids[0, :length] = probe
        found.append(_outputs(job, model, ids, None, real)[0, :length])
    return _moved(job, found, _outputs(job, model, probe[None], None, real[1:, :length])[0])


def _width(job: HarvestJob, model: TruncatedModel) -> int:
    """Width of the widest probed row; documents beyond the rotary limit never share a pass."""
    limit = _WIDEST if model.rotary is None else model.rotary.original
    return min(job.token_set.longest, limit, _WIDEST)


def _probe(job: HarvestJob, length: int) -> Int[Tensor, " place"]:
    ids = job.token_set.ids.long()
    return ids[torch.arange(length) % len(ids)]


def _random_ids(job: HarvestJob, model: TruncatedModel, shape: tuple[int, int]) -> Int[Tensor, "row place"]:
    return torch.randint(model.vocab_size, shape, generator=torch.Generator().manual_seed(0))


def _outputs(
    job: HarvestJob, model: TruncatedModel, ids: Tensor, positions: Tensor | None, real: Tensor | None = None
) -> Float[Tensor, "row place d_model"]:
    placed = [None if x is None else x.to(job.device) for x in (ids, positions, real)]
    ids, positions, real = placed  # type: ignore[assignment]
    layer = job.layers[-1]
    try:
        return model.outputs(ids, positions, layers=[layer], real=real)[layer].double()
    except torch.OutOfMemoryError:
        raise ValueError(
            f"one document of {placed[0].shape[-1]:,} tokens does not fit the memory of {job.device} in the "  # type: ignore[union-attr]
            "check before the first batch; free the device, set corpus.context lower or use a larger device"
        ) from None


def _moved(job: HarvestJob, batched: Sequence[Tensor], alone: Tensor) -> str | None:
    """The exceeded tolerance in words, or None; errors are means over rows, so no large row hides others."""
    size = alone.norm(dim=1).clamp(min=torch.finfo(torch.float32).tiny)
    foreign = float(((batched[0] - batched[1]).norm(dim=1) / size).mean())
    if foreign > _FOREIGN_TOLERANCE[job.model.dtype]:
        return f"other contents move its activations by {foreign:.2%} on average"
    shape = float(((batched[0] - alone).norm(dim=1) / size).mean())
    if shape > _SHAPE_TOLERANCE[job.model.dtype]:
        return f"its activations differ from those of the document alone by {shape:.2%} on average"
    return None


class NotFiniteError(Exception):
    """Rows with NaN or infinity at `layer`, in these documents or in ones packed with them."""

    def __init__(self, layer: int, documents: list[int]) -> None:
        super().__init__(f"layer {layer}, documents {documents}")
        self.layer = layer
        self.documents = documents


def refuse_not_finite(job: HarvestJob, shard: CorpusShard, layer: int, x: Tensor, norm: Tensor) -> None:
    """Raise where a row of a shard is not finite; `norm` are the norms of the stored rows."""
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
    """Raise where rows (`found`: layer -> rows) of `documents` are not finite (source=live)."""
    owner = documents.repeat_interleave(job.token_set.offsets.diff()[documents])
    for layer, x in found.items():
        bad = ~x.isfinite().all(dim=1)
        if bad.any():
            raise named(NotFiniteError(layer, owner[bad].unique().tolist()), job, model)


def named(error: NotFiniteError, job: HarvestJob, model: TruncatedModel) -> ValueError:
    """The user's error, which names the first document that is not finite by itself."""
    alone = (d for d in error.documents if not _is_finite_alone(job, model, error.layer, d))
    culprit = next(alone, error.documents[0])
    return ValueError(
        f"the activation of {job.model.name} at layer {error.layer} has NaN or infinite values "
        f"in document {job.token_set.document_ids[culprit]!r}; check the weights, or use dtype=float32"
    )


def _is_finite_alone(job: HarvestJob, model: TruncatedModel, layer: int, document: int) -> bool:
    """Whether a document is finite by itself; a masked NaN spreads to documents packed beside it."""
    first, last = job.token_set.offsets[document : document + 2].tolist()
    ids = job.token_set.ids[first:last].long()[None].to(job.device)
    return bool(model.outputs(ids, None, layers=[layer])[layer].isfinite().all())
