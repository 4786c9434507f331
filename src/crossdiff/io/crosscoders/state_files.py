"""Reading foreign files without running code: tensors, JSON and YAML."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


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
