"""Loading the first blocks of a decoder, without later blocks, head and gradients."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossdiff.models.checkpoint import load_config, merge_adapter, read_checkpoint
from crossdiff.models.hooks import body_of, captured, decoder_blocks
from crossdiff.models.pair import Attention, ModelSettings, check_layers
from crossdiff.models.weight_names import HEADS, is_later
from crossdiff.models.weights import Checkpoint


@dataclass(frozen=True)
class RotaryRule:
    """A model whose rotary factors depend on the longest row of a pass (longrope, dynamic NTK).

    Rows of up to `original` tokens share one set of factors. Longer rows share another, or have one per
    length (`by_length`), which transformers keeps for later passes.
    """

    original: int
    by_length: bool

    def group(self, length: int) -> int:
        """Documents of one group may share a pass; 0 for documents up to `original`."""
        if length <= self.original:
            return 0
        return length if self.by_length else 1


@dataclass
class TruncatedModel:
    """Embedding and blocks 0 up to the deepest layer."""

    body: nn.Module
    attention: Attention
    blocks: nn.ModuleList
    d_model: int
    vocab_size: int
    rotary: RotaryRule | None = None
    masks_padding: bool = False
    """Whether padding is masked, for models in which a token sees later ones."""

    @torch.inference_mode()
    def outputs(
        self,
        ids: Int[Tensor, "row place"],
        positions: Int[Tensor, "row place"] | None,
        *,
        layers: Sequence[int],
        real: Int[Tensor, "row place"] | None = None,
    ) -> dict[int, Float[Tensor, "row place d_model"]]:
        """Block outputs; `positions` that restart inside a row separate packed documents.

        Flash attention separates documents only inside a single row, so its rows are joined. `real` is 1 for
        tokens and 0 for padding; it is used where `masks_padding`.
        """
        shape = ids.shape
        if positions is not None and self.attention == "flash_attention_2":
            ids, positions = ids.reshape(1, -1), positions.reshape(1, -1)
        options = {"attention_mask": real} if self.masks_padding and real is not None else {}
        if self.rotary is not None:
            _forget_lengths(self.body)
        with captured(self.blocks, layers) as outputs:
            self.body(input_ids=ids, position_ids=positions, use_cache=False, **options)
        return {layer: self._rows(x, shape) for layer, x in outputs.items()}

    def _rows(self, x: Tensor, shape: torch.Size) -> Float[Tensor, "row place d_model"]:
        if x.numel() != shape.numel() * self.d_model or x.shape[-1] != self.d_model:
            raise ValueError(
                f"a block of {type(self.body).__name__} gives {list(x.shape)} for {list(shape)} tokens "
                f"of width {self.d_model}: several residual streams (as in Gemma-3n) cannot be compared "
                "as one; choose a model with one residual stream"
            )
        return x.reshape(*shape, self.d_model)


def _forget_lengths(body: nn.Module) -> None:
    """Reset rotary parts, because dynamic NTK keeps the factors of the longest row so far."""
    module: Any
    for module in body.modules():
        if hasattr(module, "original_max_seq_len") and hasattr(module, "original_inv_freq"):
            module.max_seq_len_cached = module.original_max_seq_len
            module.inv_freq.copy_(module.original_inv_freq)


def rotary_rule(text: Any) -> RotaryRule | None:
    """The rule of a text configuration; None where factors do not depend on the row."""
    parameters = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kinds = [parameters, *(value for value in parameters.values() if isinstance(value, dict))]
    for one in kinds:
        kind = str(one.get("rope_type", one.get("type", "")))
        original = one.get("original_max_position_embeddings") or getattr(
            text, "original_max_position_embeddings", None
        )
        if kind in ("longrope", "su", "yarn_dynamic") and original:
            return RotaryRule(int(original), by_length=False)
        if "dynamic" in kind:
            return RotaryRule(int(original or text.max_position_embeddings), by_length=True)
    return None


def check_device(device: str) -> torch.device:
    """The torch device; ValueError where this machine does not have it."""
    chosen = torch.device(device)
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device} but this machine has no CUDA device; use device=cpu")
    return chosen


def load_truncated(
    model: ModelSettings, path: str, *, layers: Sequence[int], device: str = "cpu"
) -> TruncatedModel:
    """Blocks 0..max(layers) in the model's dtype, without reading the weights of later blocks.

    The model is built with all its blocks, whose number scales residuals or sizes per-layer embeddings in
    some architectures, and loses the later ones before any weight is read.
    """
    target = check_device(device)
    config = load_config(model, path)
    text = config.get_text_config(decoder=True)
    check_layers(model, layers, text.num_hidden_layers)
    text.use_cache = False
    checkpoint = Checkpoint.find(model, path, config=config)
    n_blocks = max(layers) + 1
    with checkpoint.view(n_blocks=n_blocks) as view, _cut_when_built(text, n_blocks) as cut:
        body: Any = _from_pretrained(model, view, config, n_blocks)
    blocks = cut[0] if cut else decoder_blocks(body, text.num_hidden_layers)
    del blocks[n_blocks:]
    if model.device_map is None:
        body = body.to(target)
    return TruncatedModel(
        body=body.eval().requires_grad_(requires_grad=False),
        attention=model.attention,
        blocks=blocks,
        d_model=text.hidden_size,
        vocab_size=text.vocab_size if model.adapter is None else body.get_input_embeddings().num_embeddings,
        rotary=rotary_rule(text),
    )


def weights_read(model: ModelSettings, path: str) -> tuple[str, list[str]]:
    """The weight file or index that `load_truncated` reads, and notices about it."""
    config = load_config(model, path)
    checkpoint = Checkpoint.find(model, path, config=config)
    return checkpoint.file, [*checkpoint.notices(), *_precision(model, config)]


def _precision(model: ModelSettings, config: Any) -> Iterator[str]:
    saved = getattr(config, "dtype", None) or getattr(config, "torch_dtype", None)
    saved = str(saved).removeprefix("torch.")
    if saved == "float32" and model.dtype != "float32":
        yield (
            f"{model.name}: its weights are saved in float32 and were read in {model.dtype}; "
            "dtype=float32 (model_pair.dtype=float32 of model_pair=custom) keeps them"
        )


@contextmanager
def _cut_when_built(text: Any, n_blocks: int) -> Iterator[list[nn.ModuleList]]:
    """While open, a decoder with this configuration loses its blocks from `n_blocks` on when built.

    Every transformers model calls `post_init` at the end of its `__init__`, before weights are read. Yields
    the shortened lists; none where custom code does not call it.
    """
    from transformers import PreTrainedModel

    original, cut = PreTrainedModel.post_init, []

    def post_init(self: Any) -> None:
        if type(self.config) is type(text) and not cut:
            try:
                blocks = decoder_blocks(self, text.num_hidden_layers)
            except ValueError:  # a part without blocks, such as a projector with the text's configuration
                pass
            else:
                del blocks[n_blocks:]
                cut.append(blocks)
        original(self)

    PreTrainedModel.post_init = post_init  # type: ignore[method-assign]
    try:
        yield cut
    finally:
        PreTrainedModel.post_init = original  # type: ignore[method-assign]


def _from_pretrained(model: ModelSettings, view: str, config: Any, n_blocks: int) -> nn.Module:
    """Body of the model, after merging the adapter, if any, into the causal model."""
    from transformers import AutoModel, AutoModelForCausalLM

    code = getattr(config, "auto_map", None) or {}
    is_causal_only = "AutoModelForCausalLM" in code and "AutoModel" not in code
    needs_head = model.adapter is not None or (model.trust_remote_code and is_causal_only)
    loaded = read_checkpoint(
        AutoModelForCausalLM if needs_head else AutoModel,
        model,
        view,
        revision=model.revision if view == model.path else None,
        config=config,
        may_lack=lambda name: is_later(name, n_blocks) or (needs_head and name.startswith(HEADS)),
    )
    if model.adapter is not None:
        loaded = merge_adapter(loaded, model.adapter)
    return body_of(loaded) if needs_head else loaded
