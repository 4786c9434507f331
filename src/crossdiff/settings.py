"""Frozen, strict settings: the base class of everything that a user can set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Keyword-only, frozen settings that refuse unknown keys.

    `NOT_IDENTITY` names the fields that cannot change a result (paths, devices, worker counts); `identity()`
    and every artifact key leave them out. `ADDED` names fields that are newer than stored artifacts: keys
    leave them out while they have their default, so older artifacts keep their keys.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()
    ADDED: ClassVar[frozenset[str]] = frozenset()

    def identity(self) -> dict[str, Any]:
        """JSON-able content of these settings, tagged with the class name, without `NOT_IDENTITY`.

        A class from outside the package is tagged with its module too, so that it never equals one of ours.
        """
        fields = {
            name: _plain(getattr(self, name))
            for name in type(self).model_fields
            if name not in self.NOT_IDENTITY and not (name in self.ADDED and self._is_default(name))
        }
        kind = type(self)
        inside = kind.__module__.partition(".")[0] == __name__.partition(".")[0]
        tag = kind.__name__ if inside else f"{kind.__module__}.{kind.__qualname__}"
        return {"settings": tag, **fields}

    def _is_default(self, name: str) -> bool:
        return getattr(self, name) == type(self).model_fields[name].get_default(call_default_factory=True)


def _plain(value: Any) -> Any:
    match value:
        case Settings():
            return value.identity()
        case dict():
            return {str(key): _plain(item) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item) for item in value]
        case Path():
            return str(value)
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{value!r} of type {type(value).__name__} has no place in an artifact key")


class Runtime(Settings):
    """Where and how a step runs; nothing here may change its result."""

    store: Path = Path("store")
    device: str = "cpu"
    n_workers: int = 1
    """Processes that share a harvest's shards."""
    n_devices: int = 1
    """Devices, each with a process, that share the pass of latent scaling, of documents and of matching."""
    progress: bool = True
