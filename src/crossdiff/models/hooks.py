"""Finding the blocks of a decoder, and reading or changing their outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from crossdiff.models.weight_names import is_tower


def decoder_blocks(model: nn.Module, n_blocks: int) -> nn.ModuleList:
    """The decoder blocks: the outermost ModuleList of length `n_blocks` outside other towers."""
    lists = {name: m for name, m in model.named_modules() if isinstance(m, nn.ModuleList)}
    candidates = [n for n, m in lists.items() if len(m) == n_blocks and not _is_of_tower(model, n)]
    if not candidates:
        raise ValueError(
            f"{type(model).__name__} has no list of {n_blocks} decoder blocks (it has "
            f"{ {name: len(m) for name, m in lists.items()} }); "
            "use a decoder-only transformers model with the usual block list"
        )
    return lists[min(candidates, key=lambda name: name.count("."))]


def body_of(causal: Any) -> nn.Module:
    """Embedding and blocks of a causal model, without its head."""
    return getattr(causal, causal.base_model_prefix, causal)


def _is_of_tower(model: nn.Module, name: str) -> bool:
    """Whether a list belongs to another tower, by its name or the configuration of the module around it."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "get_text_config"):
        return is_tower(name)
    parts = name.split(".")
    around = (model.get_submodule(".".join(parts[:depth])) for depth in range(len(parts)))
    nearest = [m.config for m in around if hasattr(getattr(m, "config", None), "get_text_config")][-1]
    texts = (type(config), type(config.get_text_config(decoder=True)))
    return is_tower(name) or type(nearest) not in texts


@contextmanager
def captured(
    blocks: nn.ModuleList, layers: Sequence[int]
) -> Iterator[dict[int, Float[Tensor, "row place d_model"]]]:
    """While open, forward passes store the output of block `layer` under that key."""
    outputs: dict[int, Tensor] = {}

    def keep(layer: int) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            outputs[layer] = output[0] if isinstance(output, tuple) else output

        return hook

    handles = [blocks[layer].register_forward_hook(keep(layer)) for layer in layers]
    try:
        yield outputs
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def _changed(block: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """While open, `block` outputs `change` of its states."""

    def hook(_module: nn.Module, _inputs: Any, output: Any) -> Any:
        return (change(output[0]), *output[1:]) if isinstance(output, tuple) else change(output)

    handle = block.register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def replaced(block: nn.Module, states: Float[Tensor, "row place d_model"]) -> AbstractContextManager[None]:
    """While open, the output of `block` is `states`."""
    return _changed(block, lambda _computed: states)


@dataclass(frozen=True)
class Push:
    """Change of every row's state: `x + added - ((x - centre) . removed) removed`.

    added    vector in raw activation units; 0 adds nothing
    removed  unit direction whose part beyond `centre` is removed; 0 removes nothing
    """

    added: Float[Tensor, "row d_model"]
    removed: Float[Tensor, "row d_model"]
    centre: Float[Tensor, " d_model"]

    def rows(self, start: int, stop: int) -> Push:
        """The push of some of the rows."""
        return Push(self.added[start:stop], self.removed[start:stop], self.centre)

    def applied(self, x: Float[Tensor, "row d_model"]) -> Float[Tensor, "row d_model"]:
        """The pushed states, computed in float32."""
        added, removed, centre = (part.to(x.device) for part in (self.added, self.removed, self.centre))
        states = x.float()
        part = ((states - centre) * removed).sum(dim=1, keepdim=True)
        return (states + added - part * removed).to(x.dtype)


def pushed(block: nn.Module, push: Push) -> AbstractContextManager[None]:
    """While open, the last place of every row's output is pushed.

    With a cache that is once per new token, at the place that predicts it; earlier places of the prompt stay.
    """
    return _changed(
        block, lambda states: torch.cat([states[:, :-1], push.applied(states[:, -1])[:, None]], dim=1)
    )
