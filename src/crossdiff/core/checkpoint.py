"""The crosscoder file format: a folder with `weights.safetensors` and `config.json`.

`config.json` has format and version, settings, provenance, and the sha256 of the weights and of itself, so
that a cut or altered file is refused. The folder is local or on the Hugging Face hub.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.files import file_sha256, follow_umask

FORMAT, VERSION = "crossdiff.crosscoder", 1
WEIGHTS, CONFIG = "weights.safetensors", "config.json"
INDEX = "index.json"
"""Of a crosscoder in several files (`core.shard_files`)."""


@dataclass(frozen=True)
class Content:
    """The content of a checkpoint."""

    dictionary: DictionarySettings
    n_models: int
    d_model: int
    tensors: Mapping[str, torch.Tensor]
    metadata: Mapping[str, Any]


def write(folder: Path, content: Content) -> None:
    """Write the folder; every file aside, then renamed, the config last."""
    folder.mkdir(parents=True, exist_ok=True)
    aside = folder / f".{WEIGHTS}.part"
    save_file(dict(content.tensors), aside)
    follow_umask(aside)
    weights_sha256 = file_sha256(aside)
    os.replace(aside, folder / WEIGHTS)
    threshold = float(content.tensors["threshold"])
    config = {
        "format": FORMAT,
        "version": VERSION,
        "n_models": content.n_models,
        "d_model": content.d_model,
        "dictionary": content.dictionary.model_dump(),
        "threshold": None if math.isnan(threshold) else threshold,
        "metadata": dict(content.metadata),
        "weights_sha256": weights_sha256,
    }
    config["config_sha256"] = _content_sha256(config)
    aside = folder / f".{CONFIG}.part"
    aside.write_text(
        json.dumps(config, indent=1, allow_nan=False, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    os.replace(aside, folder / CONFIG)


def read(path: str | Path, *, revision: str | None = None) -> Content:
    """Read and check a folder or a hub id; ValueError where a file is missing, cut or altered."""
    folder = Path(path) if Path(path).is_dir() else _download(str(path), revision)
    config = _read_config(folder / CONFIG)
    weights = folder / WEIGHTS
    if not weights.is_file():
        raise ValueError(f"{weights} is missing; {_WAY_OUT}")
    if file_sha256(weights) != config["weights_sha256"]:
        raise ValueError(f"{weights} was cut or altered: its sha256 is not the one in {CONFIG}; {_WAY_OUT}")
    try:
        tensors = load_file(weights)
        dictionary = DictionarySettings(**config["dictionary"])
    except (SafetensorError, ValidationError) as error:
        raise ValueError(f"{folder} is no readable crosscoder: {error}; {_WAY_OUT}") from None
    _check_shapes(weights, tensors, (dictionary.n_latents, config["n_models"], config["d_model"]))
    return Content(dictionary, config["n_models"], config["d_model"], tensors, config["metadata"])


def is_in_blocks(path: str | Path) -> bool:
    """Whether a folder has one in several files; beside one in one file an index is of another tool."""
    folder = Path(path)
    in_one = all((folder / name).is_file() for name in (CONFIG, WEIGHTS))
    return (folder / INDEX).is_file() and not in_one


_WAY_OUT = "restore the file from where it was copied, or train again"


def _read_config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no crosscoder: {CONFIG} is missing; give a folder written by Crosscoder.save"
        )
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} was cut or altered: it is no JSON ({error}); {_WAY_OUT}") from None
    if not isinstance(config, dict) or config.get("format") != FORMAT:
        raise ValueError(
            f"{path} is no crossdiff crosscoder (its format is not {FORMAT!r}); "
            "for checkpoints of dictionary_learning use crossdiff.load_dictionary_learning"
        )
    if config.get("version") != VERSION:
        raise ValueError(
            f"{path} has format version {config.get('version')!r}, "
            f"this crossdiff reads {VERSION}; update crossdiff"
        )
    recorded = config.pop("config_sha256", None)
    if recorded != _content_sha256(config):
        raise ValueError(f"{path} was altered: its sha256 is not the recorded one; {_WAY_OUT}")
    return config


def _check_shapes(path: Path, tensors: Mapping[str, torch.Tensor], shape: tuple[int, int, int]) -> None:
    expected = {"encoder": shape, "decoder": shape, "encoder_bias": shape[:1], "decoder_bias": shape[1:]}
    for name, size in expected.items():
        stored = tuple(tensors[name].shape) if name in tensors else None
        if stored != size:
            raise ValueError(f"{path}: {name} has shape {stored}, the config says {size}; {_WAY_OUT}")


def _download(hub_id: str, revision: str | None) -> Path:
    """Folder of a hub repository in the local cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=[WEIGHTS, CONFIG]))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{hub_id!r} is neither a folder with a crosscoder nor a reachable hub repository "
            f"({type(error).__name__}); check the path, or give a local folder"
        ) from None


def push(path: str | Path, hub_id: str, *, private: bool = True) -> str:
    """Upload a saved crosscoder folder, for `Crosscoder.load(hub_id)`; returns its URL."""
    from huggingface_hub import HfApi

    read(path)
    api = HfApi()
    api.create_repo(hub_id, private=private, exist_ok=True)
    return str(
        api.upload_folder(
            repo_id=hub_id, folder_path=str(path), allow_patterns=[WEIGHTS, CONFIG, "README.md"]
        )
    )


def _content_sha256(config: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()


def unit_directions(weights: Path, latents: Sequence[int], *, model: int) -> Float[Tensor, "latent width"]:
    """Unit decoder directions of some latents in one model; only their rows are read."""
    with safe_open(str(weights), framework="pt") as handle:
        decoder = handle.get_slice("decoder")
        rows = torch.stack([decoder[latent : latent + 1, model][0] for latent in latents])
    return torch.nn.functional.normalize(rows, dim=-1)
