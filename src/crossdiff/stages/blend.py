"""Stage blend: a model folder whose weights lie on the line through two other models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VERSION = 1


class BlendInputs(Settings):
    """`model` has `towards`; `fingerprint` is `models.pair.fingerprint(model)`."""

    model: ModelSettings
    fingerprint: str


def run(inputs: BlendInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `model/`: start + distance * (end - start), with the start's tokenizer."""
    from crossdiff.models.tokenizers import load_tokenizer

    model = inputs.model
    if model.towards is None:
        raise ValueError(f"model {model.name} has no `towards`: there is nothing to blend")
    end = model.model_copy(update={"path": model.towards, "towards": None})
    folders = [resolve(ending, parents.get("organism")) for ending in (model, end)]
    first, second = (_load(model, folder) for folder in folders)
    moved = blend_(first, second, distance=model.distance)
    first.save_pretrained(draft / "model")
    load_tokenizer(folders[0], revision=model.revision).save_pretrained(draft / "model")
    return {"n_parameters": sum(p.numel() for p in first.parameters()), "distance": model.distance, **moved}


def blend_(first: PreTrainedModel, second: PreTrainedModel, *, distance: float) -> dict[str, float]:
    """Move `first` in place to first + distance * (second - first), summed in float32.

    Returns `relative_step`: |second - first| / |first| over all parameters (Euclidean).
    """
    import torch

    others = dict(second.named_parameters())
    shapes = {name: weight.shape for name, weight in first.named_parameters()}
    if shapes != {name: weight.shape for name, weight in others.items()}:
        odd = next(
            name for name in {**shapes, **others} if shapes.get(name) != getattr(others.get(name), "shape", 0)
        )
        raise ValueError(
            f"models with different parameters cannot be blended ({odd}); name two fine-tunings of one base"
        )
    step, size = 0.0, 0.0
    with torch.no_grad():
        for name, weight in first.named_parameters():
            difference = others[name].float() - weight.float()
            step += float(difference.square().sum())
            size += float(weight.float().square().sum())
            weight.copy_(weight.float() + distance * difference)
    return {"relative_step": (step / size) ** 0.5 if size else float("nan")}


def _load(model: ModelSettings, folder: str) -> PreTrainedModel:
    from transformers import AutoModelForCausalLM

    from crossdiff.models.checkpoint import read_checkpoint

    whole = model.model_copy(update={"device_map": None})
    return read_checkpoint(AutoModelForCausalLM, whole, folder, revision=model.revision)


STAGE = Stage(
    "blend",
    version=VERSION,
    run=run,
    reads=("organism",),
    writes="a model between two others, as a model folder",
    resources=needs(cpus=4, memory_gb=64),
    has_settings=True,
)
