"""Provenance of a report: the manifests of all its steps."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from crossdiff.io.artifacts import MANIFEST, read_manifest


def provenance(parents: Mapping[str, Path]) -> list[dict[str, Any]]:
    """Manifests of the parents and of every ancestor in the same store, parents first, one per key.

    An artifact lies in `<store>/<stage>/<key>`, and keys are unique over all stages.
    """
    steps_by_key: dict[str, dict[str, Any]] = {}
    waiting = [folder.resolve() for folder in parents.values()]
    while waiting:
        folder = waiting.pop()
        if folder.name in steps_by_key or not (folder / MANIFEST).is_file():
            continue
        manifest = steps_by_key[folder.name] = read_manifest(folder)
        for key in manifest.get("parents", {}).values():
            waiting += folder.parent.parent.glob(f"*/{key}")

    @cache
    def depth(key: str) -> int:
        above = steps_by_key[key].get("parents", {}).values()
        return max((1 + depth(parent) for parent in above if parent in steps_by_key), default=0)

    def place(key: str) -> tuple[int, str, str]:
        return depth(key), steps_by_key[key].get("stage", ""), steps_by_key[key].get("label", "")

    return [steps_by_key[key] for key in sorted(steps_by_key, key=place)]
