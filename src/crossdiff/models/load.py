"""Loading the first blocks of a decoder: no later block is built, no head, no gradient."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossdiff.models.hooks import captured, decoder_blocks
from crossdiff.models.pair import Attention, ModelSettings, check_layers
from crossdiff.models.reach import hub
from crossdiff.models.weights import checkpoint_folder, link_needed

WAY_OUT = "pass a folder saved with save_pretrained instead of a hub id (and check the name and your access)"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass
class TruncatedModel:
    """Embedding and blocks 0 up to the deepest layer asked for."""

    body: nn.Module
    attention: Attention
    blocks: nn.ModuleList
    n_blocks_full: int
    d_model: int
    vocab_size: int
    commit: str | None
    """Commit of a hub model; None for a folder."""

    @torch.inference_mode()
    def outputs(
        self,
        ids: Int[Tensor, "row place"],
        positions: Int[Tensor, "row place"] | None,
        *,
        layers: Sequence[int],
    ) -> dict[int, Float[Tensor, "row place d_model"]]:
        """Block outputs; `positions` that restart inside a row separate packed documents.

        Flash attention separates documents inside a single row only, so there the rows become one.
        """
        shape = ids.shape
        if positions is not None and self.attention == "flash_attention_2":
            ids, positions = ids.reshape(1, -1), positions.reshape(1, -1)
        with captured(self.blocks, layers) as outputs:
            self.body(input_ids=ids, position_ids=positions, use_cache=False)
        return {layer: x.reshape(*shape, -1) for layer, x in outputs.items()}


def load_config(model: ModelSettings, path: str) -> Any:
    """The model's configuration, with one clear message where it cannot be had."""
    from transformers import AutoConfig

    with hub(f"model {model.path}", way_out=WAY_OUT, remote=not Path(path).is_dir()):
        return AutoConfig.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )


def check_device(device: str) -> torch.device:
    """The torch device, refused when this machine does not have it."""
    found = torch.device(device)
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device} but this machine has no CUDA device; use device=cpu")
    return found


def load_truncated(
    model: ModelSettings, path: str, *, layers: Sequence[int], device: str = "cpu"
) -> TruncatedModel:
    """Build blocks 0..max(layers) in the model's dtype; weights of later blocks are never read."""
    target = check_device(device)
    config = load_config(model, path)
    text = config.get_text_config(decoder=True)
    n_blocks_full = text.num_hidden_layers
    check_layers(model, layers, n_blocks_full)
    n_blocks = max(layers) + 1
    _truncate(text, n_blocks)
    body = _load_first_blocks(model, path, config, n_blocks)
    if model.device_map is None:
        body = body.to(target)
    return TruncatedModel(
        body=body.eval().requires_grad_(requires_grad=False),
        attention=model.attention,
        blocks=decoder_blocks(body, n_blocks),
        n_blocks_full=n_blocks_full,
        d_model=text.hidden_size,
        vocab_size=text.vocab_size,
        commit=getattr(config, "_commit_hash", None),
    )


def _truncate(text: Any, n_blocks: int) -> None:
    """Shorten the configuration, with every per-layer list that it carries."""
    n_full = text.num_hidden_layers
    for name, value in list(vars(text).items()):
        if isinstance(value, list) and len(value) == n_full and name.endswith(("layers", "types")):
            setattr(text, name, value[:n_blocks])
    text.num_hidden_layers = n_blocks
    text.use_cache = False


def _load_first_blocks(model: ModelSettings, path: str, config: Any, n_blocks: int) -> nn.Module:
    checkpoint = checkpoint_folder(model, path, n_blocks=n_blocks, way_out=WAY_OUT)
    if checkpoint is None:
        return _from_pretrained(model, path, config, revision=model.revision)
    with TemporaryDirectory(prefix="crossdiff-checkpoint-") as view:
        link_needed(checkpoint, Path(view), n_blocks=n_blocks)
        return _from_pretrained(model, view, config, revision=None)


def _from_pretrained(model: ModelSettings, path: str, config: Any, *, revision: str | None) -> nn.Module:
    """Body of the model; with an adapter, the adapter is merged into the causal model first."""
    from transformers import AutoModel, AutoModelForCausalLM

    kind = AutoModel if model.adapter is None else AutoModelForCausalLM
    with quiet(), hub(f"model {model.path}", way_out=WAY_OUT, remote=not Path(path).is_dir()):
        loaded = kind.from_pretrained(
            path,
            config=config,
            revision=revision,
            dtype=DTYPES[model.dtype],
            attn_implementation=model.attention,
            device_map=model.device_map,
            trust_remote_code=model.trust_remote_code,
        )
    return loaded if model.adapter is None else body_of(merge_adapter(loaded, model.adapter))


def body_of(causal: Any) -> nn.Module:
    """Embedding and blocks of a causal model, without its head."""
    return getattr(causal, causal.base_model_prefix)


def merge_adapter(causal: Any, adapter: str) -> Any:
    """The causal model with a PEFT adapter merged into its weights."""
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError(
            f"adapter={adapter} needs the package peft; install it: pip install 'crossdiff[adapters]'"
        ) from None
    way_out = "pass the adapter's folder (with adapter_config.json)"
    with (
        hub(f"adapter {adapter}", way_out=way_out, remote=not Path(adapter).is_dir()),
        warnings.catch_warnings(),
    ):
        warnings.filterwarnings(
            "ignore", message="Found missing adapter keys|.*unexpected", category=UserWarning
        )
        return PeftModel.from_pretrained(causal, adapter).merge_and_unload()


@contextmanager
def quiet() -> Iterator[None]:
    """No report of the weights that are left out on purpose, and no bar per file."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
