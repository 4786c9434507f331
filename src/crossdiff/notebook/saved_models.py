"""Loaded models written into a store as folders, so that the pipeline reads them like any other model."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from crossdiff.models.pair import Dtype, ModelSettings, fingerprint
from crossdiff.notebook.open_model import OpenModel

PLACE = Path("notebook") / "models"
"""Inside a store."""


def found_again(path: str, store: Path) -> str:
    """The path of a model that was saved into a store which has moved since; any other path as it is."""
    folder = Path(path)
    moved = store / PLACE / folder.name
    is_ours = folder.parent.parts[-2:] == PLACE.parts
    return str(moved) if is_ours and not folder.is_dir() and moved.is_dir() else path


def saved(model: Any, store: Path, *, tokenizer: Any, dtype: Dtype | None) -> str:
    """Folder or hub id of a model; a loaded one is saved as `<store>/notebook/models/<hash of its files>`.

    ValueError where a loaded model's name leads to no tokenizer and none is given.
    """
    opened = OpenModel.of(model, name="given", layer=0, device="cpu", dtype=dtype or "bfloat16")
    if opened.loaded is None:
        return opened.settings.path
    tokenizer = tokenizer or opened.tokenizer()
    place = store / PLACE
    place.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(prefix=".saving-", dir=place))
    try:
        opened.loaded.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        content = fingerprint(ModelSettings(name="given", path=str(draft)))
        final = place / content.removeprefix("folder:")[:16]
        if not final.is_dir():
            os.chmod(draft, 0o755)  # mkdtemp closes its folder to others; the store is shared
            draft.rename(final)
        return str(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
