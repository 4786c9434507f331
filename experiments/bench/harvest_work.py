"""What the harvest benchmark runs on: a random Gemma-2, documents of chat-like lengths, contenders."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from crossdiff.data.batching import batch_arrays, form_batches
from crossdiff.data.harvest.job import HarvestJob
from crossdiff.data.harvest.run import run_job
from crossdiff.data.harvest.write import corpus_shards
from crossdiff.data.settings import CacheSource
from crossdiff.data.tokens import TokenKind, TokenSet, write_token_set
from crossdiff.models.checkpoint import DTYPES
from crossdiff.models.load import TruncatedModel
from crossdiff.models.pair import Dtype, ModelSettings

VOCABULARY = 4096


@dataclass(frozen=True)
class Workload:
    """Model folder and token set, in a scratch folder."""

    folder: Path
    d_model: int
    n_blocks: int
    layer: int
    n_tokens: int
    context: int
    dtype: Dtype
    source: CacheSource
    device: str = "cpu"

    def prepare(self) -> None:
        """Save a random Gemma-2 and a token set of log-normal document lengths (median context / 6)."""
        from transformers import AutoConfig, AutoModelForCausalLM

        torch.manual_seed(0)
        config = AutoConfig.for_model(
            "gemma2",
            vocab_size=VOCABULARY,
            hidden_size=self.d_model,
            intermediate_size=4 * self.d_model,
            num_hidden_layers=self.n_blocks,
            num_attention_heads=max(1, self.d_model // 64),
            num_key_value_heads=max(1, self.d_model // 128),
            head_dim=64,
            query_pre_attn_scalar=64,
            sliding_window=4096,
            max_position_embeddings=8192,
        )
        model = AutoModelForCausalLM.from_config(config, dtype=DTYPES[self.dtype])
        model.save_pretrained(self.folder / "model")
        make_tokens(self.folder / "tokens", n_tokens=self.n_tokens, context=self.context)

    @cached_property
    def job(self) -> HarvestJob:
        """The harvest of this model on these tokens."""
        path = self.folder / "model"
        return HarvestJob(
            model=ModelSettings(name="bench", path=str(path), dtype=self.dtype),
            path=str(path),
            fingerprint="bench",
            layers=(self.layer,),
            source=self.source,
            tokens=self.folder / "tokens",
            folder=self.folder / "harvest",
            device=self.device,
            progress=False,
        )

    def harvest(self, *, model: TruncatedModel | None = None) -> dict[str, Any]:
        """A whole harvest: model loaded unless given, rows in order, statistics, hashes, fsynced shards."""
        shutil.rmtree(self.job.folder, ignore_errors=True)
        return run_job(self.job, model=model)

    @cached_property
    def arrays(self) -> list[tuple[Tensor, Tensor]]:
        """Token ids and positions of exactly the batches that the harvest forms."""
        tokens = self.job.token_set
        found = []
        for shard in corpus_shards(tokens, shard_tokens=self.source.shard_tokens):
            documents = torch.arange(shard.first_document, shard.last_document)
            starts = tokens.offsets[documents]
            lengths = tokens.offsets[documents + 1] - starts
            batches = form_batches(
                lengths.tolist(),
                batching=self.source.batching,
                batch_tokens=self.source.batch_tokens,
                context=tokens.longest,
            )
            for batch in batches:
                made = batch_arrays(batch, tokens.ids, starts, lengths)
                found.append((made.tokens, made.positions))
        return found

    def padding(self, batching: Literal["pack", "bucket", "unsorted"]) -> float:
        """Padded share of the places that a model would see; `unsorted` is batches of rows as they come."""
        n_places, n_tokens = 0, 0
        for shard in corpus_shards(self.job.token_set, shard_tokens=self.source.shard_tokens):
            offsets = self.job.token_set.offsets[shard.first_document : shard.last_document + 1]
            lengths = offsets.diff().tolist()
            n_tokens += sum(lengths)
            if batching == "unsorted":
                size = max(1, self.source.batch_tokens // self.context)
                rows = [lengths[start : start + size] for start in range(0, len(lengths), size)]
                n_places += sum(len(row) * max(row) for row in rows)
                continue
            batches = form_batches(
                lengths, batching=batching, batch_tokens=self.source.batch_tokens, context=max(lengths)
            )
            n_places += sum(len(batch.rows) * batch.width for batch in batches)
        return 1 - n_tokens / n_places

    def full_model(self) -> nn.Module:
        """The whole causal language model, as users load it."""
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            self.folder / "model", dtype=DTYPES[self.dtype], attn_implementation="eager"
        )
        return nn.Module.to(model, self.device).eval()

    def bare_pass(self, model: TruncatedModel) -> Callable[[], None]:
        """Only the kept blocks on the same batches; outputs are dropped."""
        packed = self.source.batching == "pack"

        @torch.inference_mode()
        def run() -> None:
            for ids, positions in self.arrays:
                model.body(
                    input_ids=ids.to(self.device),
                    position_ids=positions.to(self.device) if packed else None,
                    use_cache=False,
                )
            _synchronise(self.device)

        return run

    def full_pass(self, model: nn.Module) -> Callable[[], None]:
        """All blocks, head and every hidden state on the same batches."""
        packed = self.source.batching == "pack"

        @torch.inference_mode()
        def run() -> None:
            for ids, positions in self.arrays:
                model(
                    input_ids=ids.to(self.device),
                    position_ids=positions.to(self.device) if packed else None,
                    use_cache=False,
                    output_hidden_states=True,
                )
            _synchronise(self.device)

        return run


def make_tokens(folder: Path, *, n_tokens: int, context: int) -> TokenSet:
    """Random ids in documents of log-normal length, cut at `context`, BOS first."""
    generator = torch.Generator().manual_seed(0)
    lengths: list[int] = []
    while sum(lengths) < n_tokens:
        drawn = torch.empty(256).log_normal_(mean=0.0, std=1.0, generator=generator) * context / 6
        lengths += drawn.long().clamp(8, context).tolist()
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    offsets = offsets[: int(torch.searchsorted(offsets, n_tokens)) + 1]
    kind = torch.full((int(offsets[-1]),), int(TokenKind.TEXT), dtype=torch.uint8)
    kind[offsets[:-1]] = TokenKind.BOS
    return write_token_set(
        folder,
        documents=[(f"d{n}", "bench") for n in range(len(offsets) - 1)],
        ids=torch.randint(1, VOCABULARY, kind.shape, generator=generator),
        offsets=offsets,
        kind=kind,
    )


def _synchronise(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.synchronize()
