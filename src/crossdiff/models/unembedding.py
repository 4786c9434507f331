"""The unembedding: which tokens a direction of the residual stream raises and lowers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from crossdiff.models.checkpoint import access, load_config, quiet
from crossdiff.models.hooks import decoder_blocks
from crossdiff.models.pair import ModelSettings
from crossdiff.models.weight_names import UNEMBEDDINGS, outside_blocks
from crossdiff.models.weights import Checkpoint

PROJECTION = "project_out"
"""OPT's projection between the final norm and a narrower head."""
BLOCK = 16_384


@dataclass(frozen=True)
class Unembedding:
    """Head and gain of the final norm; `centred` for a LayerNorm, which subtracts the mean first."""

    weight: Float[Tensor, "vocab d_model"]
    gain: Float[Tensor, " d_model"]
    centred: bool

    def effect(self, directions: Float[Tensor, "latent d_model"]) -> Float[Tensor, "latent vocab"]:
        """Direct effect of one unit along each direction on the logits: `W_U (g * d/|d|)`, less its mean.

        The logit lens (nostalgebraist 2020) with the final norm's gain g, without its scale and without later
        blocks. The mean over tokens is subtracted because softmax ignores it.
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
            extremes = [
                effect.topk(min(count, effect.shape[1]), largest=largest) for largest in (True, False)
            ]
            for row in range(len(part)):
                top, bottom = (_pairs(end.indices[row], end.values[row]) for end in extremes)
                yield top, bottom


def _pairs(ids: Int[Tensor, " near"], values: Float[Tensor, " near"]) -> list[tuple[int, float]]:
    return list(zip(ids.tolist(), (float(f"{value:.4g}") for value in values.tolist()), strict=True))


def load_unembedding(model: ModelSettings, path: str, *, vocab_size: int) -> Unembedding:
    """Read the head and the final norm of a checkpoint; ids from `vocab_size` on are padding.

    The model is built without memory for weights; only its final norm gets them, to be probed. An adapter's
    head is not read. ValueError where head or norm cannot be found.
    """
    config = load_config(model, path)
    body = _skeleton(config, model, path)
    text = config.get_text_config(decoder=True)
    blocks = decoder_blocks(body, text.num_hidden_layers)
    parent = next(part for part in body.modules() if any(child is blocks for child in part.children()))
    checkpoint = Checkpoint.find(model, path, config=config)
    files = checkpoint.locate(outside_blocks)
    embedding = next(name for name, part in body.named_modules() if part is body.get_input_embeddings())
    is_tied = any(getattr(part, "tie_word_embeddings", True) for part in (config, text))
    names = (*UNEMBEDDINGS, f"{embedding.rpartition('.')[2]}.weight") if is_tied else UNEMBEDDINGS
    head = _named(files, names, path)
    weight = _tensor(files, head, rows=vocab_size)
    if getattr(parent, PROJECTION, None) is not None:
        weight = weight.float() @ _tensor(files, _named(files, (f"{PROJECTION}.weight",), path)).float()
    _refuse_narrow(weight, text.hidden_size, f"{head} of {model.path}")
    norm = final_norm(parent, blocks)
    if norm is None and text.model_type != "opt":  # OPT-350m norms inside its last block
        raise ValueError(f"{model.path} ({text.model_type}) has no final norm that is known by its name")
    width = weight.shape[1]
    gain, centred = (torch.ones(width), False) if norm is None else _probed(files, *norm, width, path)
    return Unembedding(weight, gain, centred=centred)


def _refuse_narrow(weight: Tensor, width: int, head: str) -> None:
    if weight.shape[1] != width:
        raise ValueError(
            f"the head {head} has width {weight.shape[1]} and its blocks {width}, without a projection "
            f"named {PROJECTION} between them"
        )


def _skeleton(config: Any, model: ModelSettings, path: str) -> Any:
    from transformers import AutoModel

    with torch.device("meta"), quiet(), access(model, path):
        return AutoModel.from_config(config, trust_remote_code=model.trust_remote_code)


def final_norm(parent: nn.Module, blocks: nn.ModuleList) -> tuple[str, nn.Module] | None:
    """Name and module of the norm after the last block, a sibling of the blocks; None without one.

    Norms of the embedding are registered before the blocks, as is OPT's `final_layer_norm`.
    """
    children = list(parent.named_children())
    place = next(number for number, (_, child) in enumerate(children) if child is blocks)
    norms = [
        (number > place, name, child)
        for number, (name, child) in enumerate(children)
        if re.search("norm|^LN", type(child).__name__, re.IGNORECASE)
    ]
    behind = [(name, child) for is_behind, name, child in norms if is_behind]
    before = [(name, child) for is_behind, name, child in norms if not is_behind and "final" in name]
    return next(iter(behind + before), None)


def _probed(files: dict[str, Path], name: str, norm: nn.Module, width: int, path: str) -> tuple[Tensor, bool]:
    """Gain of a norm, and whether it subtracts the mean, measured on random inputs.

    For x with mean 0 and root mean square r, RMSNorm and LayerNorm give g x/r + b: half of
    N(x) - N(-x) is g x/r, however the checkpoint stores g (w, 1 + w, not at all). A constant added to x
    changes nothing where the mean is subtracted.
    """
    state = {
        entry: _tensor(files, _named(files, (f"{name}.{entry}",), path)).float()
        for entry in norm.state_dict()
    }
    norm.load_state_dict(state, assign=True)
    x = torch.randn(3, width, generator=torch.Generator().manual_seed(0)) + 1e-3
    x = x - x.mean(dim=-1, keepdim=True)
    size = x.square().mean(dim=-1, keepdim=True).sqrt()
    with torch.inference_mode():
        odd = (norm(x) - norm(-x)) / 2
        place = x.abs().argmax(dim=0, keepdim=True)  # dividing by the largest of three avoids values near 0
        gain = (odd * size / x).gather(0, place).squeeze(0)
        centred = torch.allclose(norm(x + 1), norm(x), rtol=1e-3, atol=1e-4)
    if not torch.allclose(odd * size, gain * x, rtol=1e-2, atol=1e-3 * float(odd.abs().max())):
        raise ValueError(f"the final norm of {path} ({type(norm).__name__}) is no RMSNorm and no LayerNorm")
    return gain.clone(), centred


def _tensor(files: dict[str, Path], name: str, *, rows: int | None = None) -> Tensor:
    from safetensors import safe_open

    with safe_open(str(files[name]), framework="pt") as handle:
        return handle.get_slice(name)[:rows] if rows is not None else handle.get_tensor(name)


def _named(files: dict[str, Path], endings: tuple[str, ...], path: str) -> str:
    """Name of the weight with the first present ending, outside blocks and other towers."""
    outside = sorted(filter(outside_blocks, files), key=len)
    for ending in endings:
        for name in outside:
            if name == ending or name.endswith(f".{ending}"):
                return name
    raise ValueError(f"{path} has no weight named {' or '.join(endings)}, so its logits cannot be read")
