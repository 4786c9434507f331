"""A whole causal model whose state after one block can be replaced: what would it say from there?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossdiff.models.adapters import body_of, merge_adapter
from crossdiff.models.checkpoint import load_config, read_checkpoint
from crossdiff.models.hooks import decoder_blocks, replaced
from crossdiff.models.load import check_device
from crossdiff.models.pair import ModelSettings, check_layers
from crossdiff.models.weights import Checkpoint


@dataclass
class CausalModel:
    """All blocks and the head."""

    model: Any
    blocks: nn.ModuleList

    @torch.inference_mode()
    def logits(
        self,
        ids: Int[Tensor, " place"],
        states: Float[Tensor, "state place d_model"],
        *,
        layer: int,
    ) -> Float[Tensor, "state place vocabulary"]:
        """Logits for one text when the output of block `layer` is each of `states` (float32).

        Blocks up to `layer` are computed and thrown away: that costs `(layer + 1) / n_blocks` of the pass
        and keeps whatever masks and positions the architecture makes for the later ones.
        """
        weights = next(self.model.parameters())
        rows = ids.to(weights.device, torch.int64).expand(len(states), -1)
        with replaced(self.blocks[layer], states.to(weights.device, weights.dtype)):
            return self.model(input_ids=rows, use_cache=False).logits.float()


def load_causal(model: ModelSettings, path: str, *, layer: int, device: str = "cpu") -> CausalModel:
    """The whole model in its own dtype; a `layer` that it does not have is refused."""
    target = check_device(device)
    n_blocks = load_config(model, path).get_text_config(decoder=True).num_hidden_layers
    check_layers(model, [layer], n_blocks)
    loaded = whole_model(model, path, device=target)
    return CausalModel(loaded, decoder_blocks(body_of(loaded), n_blocks))


def whole_model(model: ModelSettings, path: str, *, device: torch.device) -> Any:
    """All blocks and the head, an adapter merged, in the model's own dtype and without gradients."""
    from transformers import AutoModelForCausalLM

    with Checkpoint.find(model, path, config=load_config(model, path)).view() as view:
        revision = model.revision if view == path else None
        loaded = read_checkpoint(AutoModelForCausalLM, model, view, revision=revision)
    if model.adapter is not None:
        loaded = merge_adapter(loaded, model.adapter)
    if model.device_map is None:
        loaded = loaded.to(device)
    return loaded.eval().requires_grad_(requires_grad=False)
