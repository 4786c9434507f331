"""The weight files that `from_pretrained` reads, and views of the needed ones."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from crossdiff.models.hub import WAY_OUT, hub
from crossdiff.models.pair import ModelSettings, is_folder
from crossdiff.models.weight_names import CHOICES, needed_weights

_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")
_ADAPTER = "adapter_config.json"
_SMALL = ["*.json", "*.model", "*.txt", "*.jinja", "*.py"]


@dataclass(frozen=True)
class Checkpoint:
    """A folder or hub model, and its weight file or index that `from_pretrained` reads."""

    model: ModelSettings
    path: str
    file: str
    """The single weight file, or the index of several."""
    beside: list[str] = field(default_factory=list)
    """Other weight files and adapters there, which are not read."""

    @classmethod
    def find(cls, model: ModelSettings, path: str, *, config: Any = None) -> Checkpoint:
        """The file that transformers reads; ValueError without one."""
        named = getattr(config, "transformers_weights", None)
        candidates = [name for name in (named, *CHOICES) if name]
        present = (name for name in candidates if _fetched(model, path, name) is not None)
        first = next(present, None)
        if first is None:
            raise ValueError(
                f"{model.path} has no weights (none of {', '.join(CHOICES)}); "
                "save or download the whole model again"
            )
        # On the hub every look is a request, so only a folder is searched for more.
        beside = [*present] if is_folder(path) else []
        adapter = [_ADAPTER] if _fetched(model, path, _ADAPTER) is not None else []
        return cls(model, path, first, [*beside, *adapter])

    @property
    def is_sharded(self) -> bool:
        """Whether the weights lie in several files."""
        return self.file.endswith(".index.json")

    def weight_map(self) -> dict[str, str]:
        """Weight name -> file name, of a safetensors checkpoint in one file or several."""
        path = self.fetch(self.file)
        if self.is_sharded:
            return json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        if path.suffix != ".safetensors":
            raise ValueError(
                f"{self.model.path} has {self.file} and no safetensors file, which can be read in part; "
                "save it again with save_pretrained"
            )
        from safetensors import safe_open

        with safe_open(str(path), framework="pt") as handle:
            return dict.fromkeys(handle.keys(), self.file)

    def locate(self, wanted: Callable[[str], bool]) -> dict[str, Path]:
        """Weight name -> path of its file, for the wanted names."""
        return {name: self.fetch(file) for name, file in self.weight_map().items() if wanted(name)}

    def fetch(self, name: str) -> Path:
        """Path of a file of the checkpoint; ValueError where it is missing."""
        path = _fetched(self.model, self.path, name)
        if path is None:
            raise ValueError(f"{self.model.path} lacks {name}; save or download the whole model again")
        return path

    def notices(self) -> list[str]:
        """Notice on other weights beside those that are read."""
        if not self.beside:
            return []
        return [f"{self.model.name}: {self.file} was read and {', '.join(self.beside)} beside it was not"]

    @contextmanager
    def view(self, *, n_blocks: int | None = None) -> Iterator[str]:
        """Argument of `from_pretrained`: the path, or a folder of links to the needed files.

        Links are made where the first `n_blocks` blocks need some of several files, and where an adapter lies
        beside whole weights: with PEFT installed transformers would apply it.
        """
        needs_part = n_blocks is not None and self.file.endswith(".safetensors.index.json")
        if not needs_part and _ADAPTER not in self.beside:
            yield self.path
            return
        index = self.weight_map() if self.is_sharded else {}
        kept = index if n_blocks is None else needed_weights(index, n_blocks)
        files = set(kept.values()) or {self.file}
        with TemporaryDirectory(prefix="crossdiff-checkpoint-") as folder:
            _link(self._folder(files), Path(folder), files)
            if self.is_sharded:
                record = json.loads(self.fetch(self.file).read_text(encoding="utf-8"))
                (Path(folder) / self.file).write_text(
                    json.dumps({**record, "weight_map": kept}), encoding="utf-8"
                )
            yield folder

    def _folder(self, files: set[str]) -> Path:
        if is_folder(self.path):
            return Path(self.path)
        from huggingface_hub import snapshot_download

        with hub(f"model {self.model.path}", way_out=WAY_OUT):
            return Path(
                snapshot_download(
                    self.path, revision=self.model.revision, allow_patterns=[*_SMALL, *sorted(files)]
                )
            )


def _link(source: Path, view: Path, files: set[str]) -> None:
    for path in source.iterdir():
        is_other = path.suffix in _WEIGHTS and path.name not in files
        if path.is_file() and not (is_other or path.name in CHOICES[1::2] or path.name == _ADAPTER):
            (view / path.name).symlink_to(path.resolve())


def _fetched(model: ModelSettings, path: str, name: str) -> Path | None:
    """Path of one file of a folder or hub model; None where the model does not have it."""
    if is_folder(path):
        file = Path(path).expanduser() / name
        return file if file.is_file() else None
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with hub(f"model {model.path}", way_out=WAY_OUT):
        try:
            return Path(hf_hub_download(path, name, revision=model.revision))
        except LocalEntryNotFoundError:  # offline: not in the cache; online: the network failed
            if not constants.HF_HUB_OFFLINE:
                raise
            return None
        except EntryNotFoundError:
            return None
