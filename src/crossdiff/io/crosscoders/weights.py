"""Foreign checkpoints: files read without running code, their content in our axes, the Crosscoder of it."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import CodeNorm, DictionarySettings
from crossdiff.core.normaliser import Normaliser

MeanNorms = Callable[[], Sequence[float]]
"""Mean norm of raw activations per model; called for files without a scale."""


@dataclass(frozen=True)
class Weights:
    """A checkpoint's tensors in our axes, and what its format leaves unknown.

    encoder, decoder : [latent, model, d_model]
    encoder_bias     : [latent]
    decoder_bias     : [model, d_model]
    gate             : [latent] JumpReLU thresholds of the code, or None
    threshold        : of the scaled code
    scale            : factor per model on raw activations; None where the file has none
    facts            : the file's further statements on its origin, for the record (JSON)
    """

    encoder: Tensor
    encoder_bias: Tensor
    decoder: Tensor
    decoder_bias: Tensor
    gate: Tensor | None = None
    threshold: float = 0.0
    code_norm: CodeNorm = "sum"
    scale: Sequence[float] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


def build(
    file: Path, weights: Weights, *, scale: Sequence[float] | None, mean_norms: MeanNorms | None
) -> Crosscoder:
    """The Crosscoder of these weights, with the origin of the scale in its metadata's `source`."""
    n_latents, n_models, d_model = weights.encoder.shape
    _check_shapes(file, weights)
    factors, origin = _scale(file, weights, n_models, d_model, given=scale, mean_norms=mean_norms)
    normaliser = Normaliser(n_models, d_model)
    normaliser.scale.copy_(torch.tensor(factors, dtype=torch.float64))
    source = {**weights.facts, "scale": [float(factor) for factor in factors], "scale_origin": origin}
    settings = DictionarySettings(n_latents=n_latents, code_norm=weights.code_norm)
    crosscoder = Crosscoder(
        settings, n_models=n_models, d_model=d_model, normaliser=normaliser, metadata={"source": source}
    )
    with torch.no_grad():
        for name in ("encoder", "encoder_bias", "decoder", "decoder_bias"):
            getattr(crosscoder, name).copy_(getattr(weights, name))
        if weights.gate is not None:
            crosscoder.add_gate_(1.0)
            assert crosscoder.log_gate is not None
            crosscoder.log_gate.copy_(weights.gate.log())
        crosscoder.threshold.fill_(weights.threshold)
    return crosscoder


def shaped(file: Path, state: Mapping[str, Tensor], name: str, shape: Sequence[int]) -> Tensor:
    """The tensor of that name; ValueError where it is missing or of another shape."""
    if name not in state:
        raise ValueError(f"{file} has no tensor {name}; it has {', '.join(sorted(state)) or 'none'}")
    if tuple(state[name].shape) != tuple(shape):
        raise ValueError(f"{file}: {name} has shape {list(state[name].shape)}, expected {list(shape)}")
    return state[name]


def _check_shapes(file: Path, weights: Weights) -> None:
    n_latents, n_models, d_model = weights.encoder.shape
    expected = {
        "encoder_bias": (n_latents,),
        "decoder": (n_latents, n_models, d_model),
        "decoder_bias": (n_models, d_model),
    }
    for name, shape in expected.items():
        if (given := tuple(getattr(weights, name).shape)) != shape:
            raise ValueError(f"{file}: the {name.replace('_', ' ')} has shape {given}, expected {shape}")


def _scale(
    file: Path,
    weights: Weights,
    n_models: int,
    d_model: int,
    *,
    given: Sequence[float] | None,
    mean_norms: MeanNorms | None,
) -> tuple[Sequence[float], str]:
    """The factor per model, and its origin: `file`, `given` or `estimated`."""
    if weights.scale is not None:
        if given is not None:
            raise ValueError(
                f"{file} has the scale of its activations ({_listed(weights.scale)}), so scale="
                f"{list(given)} would contradict it; leave the scale out"
            )
        return checked_scale(weights.scale, n_models), "file"
    if given is not None:
        return checked_scale(given, n_models), "given"
    if mean_norms is None:
        raise ValueError(
            f"{file} lacks the factor that each model's activations were multiplied by, and without "
            "it every code would be wrong; give scale=[<base>,<tuned>], which the authors publish or which "
            "is sqrt(d_model) / mean norm of the activations"
        )
    norms = checked_scale(mean_norms(), n_models)
    return [math.sqrt(d_model) / norm for norm in norms], "estimated"


def checked_scale(scale: Sequence[float], n_models: int) -> list[float]:
    """The factors as floats; ValueError unless one positive, finite factor per model is given."""
    if isinstance(scale, int | float | str):
        raise ValueError(f"scale={scale!r} must be a list, one factor for each of the {n_models} models")
    values = [float(value) for value in scale]
    if len(values) != n_models or not all(math.isfinite(value) and value > 0 for value in values):
        raise ValueError(
            f"scale={values} must be one positive factor for each of the {n_models} models, base first"
        )
    return values


def _listed(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.6g}" for value in values)


def read_state(file: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a state dict that `torch.save` wrote (`weights_only`)."""
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        state = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = reason_of(error)
        raise ValueError(
            f"{file} is cut, or no checkpoint of tensors alone (no code is run): {reason}; copy it "
            "again, or have its author save it as safetensors"
        ) from None
    if not isinstance(state, Mapping):
        raise ValueError(f"{file} has a {type(state).__name__}, no state dict; give the weights of a model")
    named = {str(name).removeprefix("_orig_mod."): value for name, value in state.items()}
    return {name: value for name, value in named.items() if isinstance(value, Tensor)}


def reason_of(error: Exception) -> str:
    """The first line of an error, without torch's advice to load a file that would run code."""
    if isinstance(error, pickle.UnpicklingError):
        return "it is a pickle of more than tensors"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def read_object(file: Path) -> dict[str, Any]:
    """The object in a JSON or YAML file."""
    try:
        text = file.read_text(encoding="utf-8")
        content = json.loads(text) if file.suffix == ".json" else yaml.load(text, _InertLoader)
    except (ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{file} cannot be read: {' '.join(str(error).split())}; copy it again") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file} has a {type(content).__name__}, no settings; copy it again")
    return content


class _InertLoader(yaml.SafeLoader):
    """SafeLoader that reads tuples as lists and `torch.float32` as its name, without imports."""


def _sequence(loader: yaml.SafeLoader, node: yaml.Node) -> list[Any]:
    if not isinstance(node, yaml.SequenceNode):
        raise yaml.constructor.ConstructorError(None, None, "a tuple that is no sequence", node.start_mark)
    return loader.construct_sequence(node, deep=True)


def _name(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> str:
    return suffix


_InertLoader.add_constructor("tag:yaml.org,2002:python/tuple", _sequence)
_InertLoader.add_multi_constructor("tag:yaml.org,2002:python/name:torch.", _name)
