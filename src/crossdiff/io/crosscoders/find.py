"""Recognising the checkpoint format of a file, folder or hub repository; imports no torch, for plans."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from crossdiff.io.file_hashes import file_sha256

Format = Literal["crossdiff", "dictionary_learning", "neelnanda", "crosscode", "openmoss", "saelens"]

READABLE = (
    "crossdiff (config.json + weights.safetensors), dictionary_learning "
    "(model.safetensors, model.pt or ae.pt), "
    "neelnanda (cfg.json + cc_weights.pt, or 3_cfg.json + 3.pt), crosscode (model_cfg.yaml + model.pt), "
    "OpenMOSS (config.json + sae_weights.safetensors), saelens as export.format=saelens writes it"
)
CONFIGS = ("config.json", "cfg.json", "*_cfg.json", "model_cfg.yaml")
WEIGHTS = ("*.safetensors", "*.pt")
MOST_LISTED = 12


@dataclass(frozen=True)
class Checkpoint:
    """One crosscoder on this machine: its format, and the files of its weights and settings."""

    format: Format
    weights: Path
    config: Path | None

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return (self.weights,) if self.config is None else (self.weights, self.config)

    def sha256(self) -> dict[str, str]:
        """File name -> sha256."""
        return {file.name: file_sha256(file) for file in self.files}


def find_checkpoint(path: str | Path, *, revision: str | None = None) -> Checkpoint:
    """The crosscoder at a file, a folder or a hub id (`owner/name`, `owner/name/sub/folder`, with `@rev`).

    ValueError, with the readable formats, where there is none or several.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return _one(path, [one for one in _checkpoints(place.parent) if one.weights == place], place)
    folder = place if place.is_dir() else _download(str(path), revision)
    return _one(path, list(_checkpoints(folder)), folder)


def _one(path: str | Path, checkpoints: list[Checkpoint], place: Path) -> Checkpoint:
    if not checkpoints:
        raise ValueError(
            f"{path} has no crosscoder that can be read: it is {_listed(place)}. Readable: {READABLE}"
        )
    if (
        len({checkpoint.format for checkpoint in checkpoints}) == 1
        and checkpoints[0].format == "dictionary_learning"
    ):
        return checkpoints[0]  # the same weights in several files
    if len(checkpoints) > 1:
        names = ", ".join(checkpoint.weights.name for checkpoint in checkpoints)
        raise ValueError(f"{path} has several crosscoders ({names}); give the file of one of them")
    return checkpoints[0]


def _checkpoints(folder: Path) -> Iterator[Checkpoint]:
    """All readable checkpoints of a folder, recognised by file names and settings."""
    config = folder / "config.json"
    settings = _object(config)
    weights = folder / "weights.safetensors"
    if settings.get("format") == "crossdiff.crosscoder" and weights.is_file():
        yield Checkpoint("crossdiff", weights, config)
        return
    if settings.get("sae_type") == "crosscoder" and (folder / "sae_weights.safetensors").is_file():
        yield Checkpoint("openmoss", folder / "sae_weights.safetensors", config)
        return
    if (folder / "cfg.json").is_file() and (folder / "sae_weights.safetensors").is_file():
        yield Checkpoint("saelens", folder / "sae_weights.safetensors", folder / "cfg.json")
        return
    if (folder / "model_cfg.yaml").is_file() and (folder / "model.pt").is_file():
        yield Checkpoint("crosscode", folder / "model.pt", folder / "model_cfg.yaml")
        return
    numbered = [
        file for file in sorted(folder.glob("*_cfg.json")) if (folder / _weights_name(file)).is_file()
    ]
    for config in (folder / "cfg.json", *numbered):
        if config.is_file() and (folder / _weights_name(config)).is_file():
            yield Checkpoint("neelnanda", folder / _weights_name(config), config)
    for name in ("model.safetensors", "model.pt", "ae.pt"):
        if (folder / name).is_file():
            yield Checkpoint("dictionary_learning", folder / name, None)


def _weights_name(config: Path) -> str:
    return "cc_weights.pt" if config.name == "cfg.json" else f"{config.name.removesuffix('_cfg.json')}.pt"


def _object(path: Path) -> dict[str, Any]:
    """A JSON object; empty where there is none, or a damaged one, which the reader reports."""
    try:
        checkpoints = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return checkpoints if isinstance(checkpoints, dict) else {}


def _listed(place: Path) -> str:
    if place.is_file():
        return f"the file {place.name}"
    inside = place.iterdir() if place.is_dir() else ()
    names = sorted(f"{path.name}/" if path.is_dir() else path.name for path in inside)
    shown = ", ".join(names[:MOST_LISTED]) or "nothing"
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return f"a folder with {shown}{more}"


def _download(place: str, revision: str | None) -> Path:
    """The folder of a hub repository in the local cache, with its settings and weights."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    place, _, named = place.partition("@")
    revision = named or revision
    owner, _, rest = place.partition("/")
    name, _, inside = rest.partition("/")
    try:
        if place.startswith((".", "/", "~")) or not name:
            raise HFValidationError("no hub id")
        prefix = f"{inside.strip('/')}/" if inside else ""
        wanted = [f"{prefix}{pattern}" for pattern in (*CONFIGS, *WEIGHTS)]
        deeper = [f"{prefix}*/*"]  # a `*` of a pattern also matches `/`
        root = Path(
            snapshot_download(
                f"{owner}/{name}", revision=revision, allow_patterns=wanted, ignore_patterns=deeper
            )
        )
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{place!r} is neither a file or folder nor a reachable hub repository "
            f"({type(error).__name__}); check the path, or give a local folder"
        ) from None
    if not (root / inside).is_dir():
        raise ValueError(f"{owner}/{name} has no folder {inside!r}; it is {_listed(root)}")
    return root / inside
