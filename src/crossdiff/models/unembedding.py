"""The last step of a model alone: which tokens a direction of the residual stream raises and lowers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from crossdiff.models.checkpoint import load_config
from crossdiff.models.pair import ModelSettings
from crossdiff.models.weights import Checkpoint

HEADS = ("lm_head.weight", "embed_out.weight", "embed_tokens.weight", "wte.weight", "embed_in.weight")
"""Ends of the names that an unembedding goes by, an own head before the embedding that tied models share."""
NORMS = ("model.norm.weight", "ln_f.weight", "final_layer_norm.weight")
BIASES = tuple(f"{name.removesuffix('weight')}bias" for name in NORMS)
BLOCK = 16_384


@dataclass(frozen=True)
class Unembedding:
    """Head and gain of the final norm; `centred` for a LayerNorm, which subtracts the mean first."""

    weight: Float[Tensor, "vocab d_model"]
    gain: Float[Tensor, " d_model"]
    centred: bool

    def effect(self, directions: Float[Tensor, "latent d_model"]) -> Float[Tensor, "latent vocab"]:
        """Direct effect of one unit along each direction: `W_U (g * d/|d|)`, minus its mean over the tokens.

        The logit lens (nostalgebraist 2020) with the final norm's scale left out and its gain kept; what
        later blocks make of the direction is not in it. The mean is taken off since softmax ignores it.
        """
        unit = torch.nn.functional.normalize(directions.float(), dim=-1)
        if self.centred:
            unit = unit - unit.mean(dim=-1, keepdim=True)
        parts = [unit * self.gain @ rows.float().T for rows in self.weight.split(BLOCK)]
        logits = torch.cat(parts, dim=-1)
        return logits - logits.mean(dim=-1, keepdim=True)

    def ends(
        self, directions: Float[Tensor, "latent d_model"], *, count: int, at_a_time: int = 64
    ) -> Iterator[tuple[list[tuple[int, float]], list[tuple[int, float]]]]:
        """Per direction the `count` most raised and most lowered tokens, as (token id, effect)."""
        for part in directions.split(at_a_time):
            effect = self.effect(part)
            found = [effect.topk(min(count, effect.shape[1]), largest=largest) for largest in (True, False)]
            for row in range(len(part)):
                top, bottom = (_pairs(each.indices[row], each.values[row]) for each in found)
                yield top, bottom


def _pairs(ids: Int[Tensor, " near"], values: Float[Tensor, " near"]) -> list[tuple[int, float]]:
    return list(zip(ids.tolist(), (float(f"{value:.4g}") for value in values.tolist()), strict=True))


def load_unembedding(model: ModelSettings, path: str, *, vocab_size: int) -> Unembedding:
    """Read two tensors of a checkpoint; ids from `vocab_size` on are padding. An adapter's head is not read.

    ValueError where the checkpoint has neither a head nor an embedding under a known name.
    """
    from safetensors import safe_open

    config = load_config(model, path)
    files = Checkpoint.find(model, path, config=config).locate(
        lambda name: name.endswith((*HEADS, *NORMS, *BIASES))
    )
    head, norm = _named(files, HEADS, path), _named(files, NORMS, path)
    with safe_open(str(files[head]), framework="pt") as handle:
        weight = handle.get_slice(head)[:vocab_size]
    with safe_open(str(files[norm]), framework="pt") as handle:
        gain = handle.get_tensor(norm).float()
    if config.get_text_config(decoder=True).model_type.startswith("gemma"):
        gain = gain + 1
    return Unembedding(weight, gain, centred=norm.removesuffix("weight") + "bias" in files)


def _named(files: dict[str, Path], endings: tuple[str, ...], path: str) -> str:
    for ending in endings:
        for name in files:
            if name == ending or name.endswith(f".{ending}"):
                return name
    raise ValueError(f"{path} has no weight named {' or '.join(endings)}, so its logits cannot be read")
