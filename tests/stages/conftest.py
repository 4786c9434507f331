"""Finished `documents` folders with planted topics, as the stages annotate and compare read them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.planted_documents import write_documents


@pytest.fixture
def documents_folder(tmp_path: Path) -> Callable[..., Path]:
    """Builds a `documents` artifact: one exclusive latent per given category name."""

    def build(pair: str, latents: list[str]) -> Path:
        return write_documents(tmp_path / f"documents_{pair}", pair, latents)

    return build
