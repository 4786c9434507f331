"""How many of crossdiff's files a training batch, a scaling stage and an annotation pass, seen by a profiler.

python -m crossdiff.bench files_passed

`crossdiff.diff` compares two random models of two blocks on made-up texts. A file counts when one of its
functions is called: in one training batch (the sixth), in the whole stage that makes the latent table, and in
the whole stage that labels with the lexical annotator.
"""

from __future__ import annotations

import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch

import crossdiff
from crossdiff.settings import Settings

PACKAGE = Path(crossdiff.__file__).parent
WORDS = ("the", "model", "said", "that", "small", "answers", "are", "often", "better", "than", "long", "ones")
STEP = 5
TINY = (
    "dictionary=toy", "dictionary.n_latents=64", "sparsity=toy", "sparsity.k=8", "sparsity.k_initial=16",
    "sparsity.anneal_steps=5", "training=toy", "training.n_steps=20", "training.batch_size=128",
    "training.warmup_steps=2", "draws=100",
)  # fmt: skip


class FilesPassed(Settings):
    """No settings: the count depends on the code alone."""


def main(overrides: list[str]) -> dict[str, Any]:
    """Files of the package per unit of work, with their names."""
    FilesPassed.model_validate(dict(item.split("=", 1) for item in overrides))
    from crossdiff.stages import annotate, scale
    from crossdiff.training.module import CrosscoderModule

    passed: dict[str, set[str]] = {"training_batch": set(), "stage_scale": set(), "stage_annotate": set()}
    CrosscoderModule.training_step = _one_step(CrosscoderModule.training_step, passed["training_batch"])
    for name, stage in (("stage_scale", scale.STAGE), ("stage_annotate", annotate.STAGE)):
        object.__setattr__(stage, "run", _whole(stage.run, passed[name]))
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = _tokenizer()
        base, tuned = (_model(seed, len(tokenizer)) for seed in (0, 1))
        texts = [" ".join(WORDS[(i * 7 + j * 5) % len(WORDS)] for j in range(30)) for i in range(60)]
        crossdiff.diff(
            base, tuned, texts, layer=1, tokenizer=tokenizer, settings=TINY, store=folder,
            results=f"{folder}/results", device="cpu", progress=False,
        )  # fmt: skip
    counts = {name: len(files) for name, files in passed.items()}
    return counts | {f"{name}_files": sorted(files) for name, files in passed.items()}


@contextmanager
def _noting(files: set[str]) -> Iterator[None]:
    """Note the file of every function of the package that this thread calls in the block."""

    def note(frame: FrameType, event: str, _argument: object) -> None:
        code = frame.f_code  # of a function: modules and class bodies have no optimised locals
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED:
            path = Path(code.co_filename)
            if path.is_relative_to(PACKAGE):
                files.add(str(path.relative_to(PACKAGE)))

    sys.setprofile(note)
    try:
        yield
    finally:
        sys.setprofile(None)


def _one_step(step: Callable[..., Any], files: set[str]) -> Callable[..., Any]:
    """The training step, noting from the end of step `STEP` to the end of the next: the fetch is between."""
    state: dict[str, Any] = {"n": 0}

    def noted(*arguments: Any, **options: Any) -> Any:
        result = step(*arguments, **options)
        state["n"] += 1
        if state["n"] == STEP:
            state["noting"] = _noting(files)
            state["noting"].__enter__()
        elif state["n"] == STEP + 1:
            state["noting"].__exit__(None, None, None)
        return result

    return noted


def _whole(run: Callable[..., Any], files: set[str]) -> Callable[..., Any]:
    def noted(*arguments: Any) -> Any:
        with _noting(files):
            return run(*arguments)

    return noted


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<bos>", "<unk>", *dict.fromkeys(WORDS)]
    core = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<bos>", unk_token="<unk>")


def _model(seed: int, n_vocabulary: int) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=n_vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=128,
    )  # fmt: skip
    return LlamaForCausalLM(config)
