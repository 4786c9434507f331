"""The forward passes of both models over chosen documents, part by part, so that a killed run goes on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from crossdiff.core.logit_differences import Change, TokenSums, change_of
from crossdiff.data.batching import batch_arrays, form_batches
from crossdiff.data.tokens import TokenSet
from crossdiff.io.progress import bar
from crossdiff.io.tables import errors_name
from crossdiff.models.pair import ModelSettings

PART = 64
"""Documents per part: what a killed run loses at most."""


@dataclass(frozen=True)
class Corpus:
    """The documents that are read, and which of their tokens count."""

    token_set: TokenSet
    kept: Bool[Tensor, " row"]
    documents: Int[Tensor, " document"]
    n_vocabulary: int

    def positions(self, document: int) -> Int[Tensor, " position"]:
        """Rows that the mask keeps and that another token of the document follows."""
        start, stop = self.token_set.offsets[document : document + 2].tolist()
        last = max(
            start, stop - 1
        )  # an empty document at the start would end at -1, that is, before the last
        return start + self.kept[start:last].nonzero().flatten()


@dataclass(frozen=True)
class Reader:
    """Both whole models, base first."""

    models: tuple[Any, Any]
    device: torch.device
    batch_tokens: int
    top_k: int

    def changes(self, corpus: Corpus, documents: Int[Tensor, " document"]) -> Iterator[tuple[int, Change]]:
        """Document and its change; documents without a position are left out."""
        starts = corpus.token_set.offsets[documents]
        lengths = corpus.token_set.offsets[documents + 1] - starts
        batches = form_batches(
            lengths.tolist(), batching="bucket", batch_tokens=self.batch_tokens, context=int(lengths.max())
        )
        for batch in batches:
            arrays = batch_arrays(batch, corpus.token_set.ids, starts, lengths)
            logits = self._logits(arrays.tokens, arrays.rows >= 0)
            for place, (number,) in enumerate(batch.rows):
                document = int(documents[number])
                rows = corpus.positions(document)
                if len(rows) == 0:
                    continue
                at = (rows - int(starts[number])).to(self.device)
                base, tuned = (each[place, at, : corpus.n_vocabulary] for each in logits)
                following = corpus.token_set.ids[rows + 1].to(self.device, torch.int64)
                yield document, change_of(base, tuned, following, k=self.top_k)

    @torch.inference_mode()
    def _logits(
        self, ids: Int[Tensor, "row place"], real: Bool[Tensor, "row place"]
    ) -> list[Float[Tensor, "row place vocabulary"]]:
        ids, mask = ids.to(self.device), real.to(self.device, torch.int64)
        return [
            model(input_ids=ids, attention_mask=mask, use_cache=False).logits.to(self.device)
            for model in self.models
        ]


@dataclass
class Findings:
    """The passes' sums, figures per document, and the raised tokens of every position."""

    sums: TokenSums
    document: list[Tensor] = field(default_factory=list)
    n_positions: list[Tensor] = field(default_factory=list)
    nll: list[Tensor] = field(default_factory=list)
    kl: list[Tensor] = field(default_factory=list)
    row: list[Tensor] = field(default_factory=list)
    top: list[Tensor] = field(default_factory=list)
    values: list[Tensor] = field(default_factory=list)

    def add(self, document: int, rows: Int[Tensor, " position"], change: Change) -> None:
        """Take over one document; sums over positions are float64."""
        self.sums.add_document(change)
        self.document.append(torch.tensor([document]))
        self.n_positions.append(torch.tensor([len(rows)]))
        self.nll.append(change.nll.double().sum(dim=1)[None].cpu())
        self.kl.append(change.kl.double().sum()[None].cpu())
        self.row.append(rows)
        self.top.append(change.top.to(torch.int32).cpu())
        self.values.append(change.values.float().cpu())

    def tensors(self) -> dict[str, Tensor]:
        """Everything in one tensor per name, for a safetensors file."""
        names = ("document", "n_positions", "nll", "kl", "row", "top", "values")
        joined = {name: torch.cat(parts) for name in names if (parts := getattr(self, name))}
        return {**{f"sum.{name}": value for name, value in self.sums.tensors().items()}, **joined}


def read_parts(
    corpus: Corpus, folder: Path, load: Callable[[], Reader], *, progress: bool
) -> dict[str, Tensor]:
    """All parts, of which those that an earlier attempt has left are not computed again.

    The models are loaded when the first part is missing. Gives tensors as `Findings.tensors`.
    """
    from safetensors.torch import load_file, save_file

    folder.mkdir(exist_ok=True)
    reader: Reader | None = None
    files = []
    with bar(total=len(corpus.documents), description="outputs", unit="doc", enabled=progress) as shown:
        for number, documents in enumerate(corpus.documents.split(PART)):
            file = folder / f"{number:05d}.safetensors"
            files.append(file)
            if not file.is_file():
                reader = reader or load()
                found = Findings(TokenSums.empty(corpus.n_vocabulary))
                for document, change in reader.changes(corpus, documents):
                    found.add(document, corpus.positions(document), change)
                aside = file.with_suffix(".part")
                with errors_name(file):
                    save_file(found.tensors(), aside)
                os.replace(aside, file)
            shown.update(len(documents))
    return _joined([load_file(file) for file in files])


def _joined(parts: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    names = dict.fromkeys(name for part in parts for name in part)
    found = {}
    for name in names:
        values = [part[name] for part in parts if name in part]
        found[name] = torch.stack(values).sum(dim=0) if name.startswith("sum.") else torch.cat(values)
    return found


def load_reader(
    settings: tuple[ModelSettings, ModelSettings],
    paths: tuple[str, str],
    *,
    device: str,
    batch_tokens: int,
    top_k: int,
    n_vocabulary: int,
) -> Reader:
    """Both whole models on their device; one that lacks tokens of the vocabulary is refused."""
    from crossdiff.models.generate import whole_model
    from crossdiff.models.load import check_device

    target = check_device(device)
    models = tuple(whole_model(s, path, device=target) for s, path in zip(settings, paths, strict=True))
    for model, asked in zip(models, settings, strict=True):
        head = model.get_output_embeddings()
        if head is not None and head.weight.shape[0] < n_vocabulary:
            raise ValueError(
                f"{asked.path} predicts {head.weight.shape[0]:,} tokens and the tokenizer of the pair has "
                f"{n_vocabulary:,}: vocabularies differ, and logits can only be compared token by token; "
                "give two models of one vocabulary"
            )
    return Reader((models[0], models[1]), target, batch_tokens, top_k)
