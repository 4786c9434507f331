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

from crossdiff.models.checkpoint import WAY_OUT, load_config, read_checkpoint
from crossdiff.models.hooks import captured, decoder_blocks
from crossdiff.models.hub import hub
from crossdiff.models.pair import Attention, ModelSettings, check_layers
from crossdiff.models.weights import HEADS, checkpoint_folder, link_needed


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

    if model.adapter is None:
        return read_checkpoint(AutoModel, model, path, revision=revision, config=config)
    loaded = read_checkpoint(
        AutoModelForCausalLM, model, path, revision=revision, config=config, left_out=HEADS
    )
    return body_of(merge_adapter(loaded, model.adapter))


def body_of(causal: Any) -> nn.Module:
    """Embedding and blocks of a causal model, without its head."""
    return getattr(causal, causal.base_model_prefix)


def merge_adapter(causal: Any, adapter: str) -> Any:
    """The causal model with a PEFT adapter merged into its weights; one that does not fit it is refused."""
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError(
            f"adapter={adapter} needs the package peft; install it: pip install 'crossdiff[adapters]'"
        ) from None
    way_out = "pass the adapter's folder (with adapter_config.json)"
    with (
        hub(f"adapter {adapter}", way_out=way_out, remote=not Path(adapter).is_dir()),
        warnings.catch_warnings(record=True) as told,
        _refuse_other_adapter(adapter),
    ):
        adapted = PeftModel.from_pretrained(causal, adapter)
    missing = [str(warning.message) for warning in told if _MISSING in str(warning.message)]
    if missing:
        raise ValueError(f"adapter {adapter} is not whole: {missing[0][:300]}; save or download it again")
    return adapted.merge_and_unload()


_MISSING = "missing adapter keys"
"""What PEFT warns of; it also warns of keys for blocks that are not built here, which is no fault."""


@contextmanager
def _refuse_other_adapter(adapter: str) -> Iterator[None]:
    """One message for an adapter that names modules or shapes which the model does not have."""
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"adapter {adapter} does not fit the model: {' '.join(str(error).split())[:300]}; give the model "
            "that it was trained on as this model's path"
        ) from error
