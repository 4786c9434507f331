"""crossdiff: what changed inside a language model when it was fine-tuned.

The names below are imported on first use, so that `import crossdiff` costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from crossdiff import moved

if TYPE_CHECKING:
    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.core.decoder_norms import decoder_norms
    from crossdiff.core.latent_table import latent_scaling
    from crossdiff.io.interop import load_dictionary_learning
    from crossdiff.notebook.pair import open_pair
    from crossdiff.notebook.run import open_run
    from crossdiff.notebook.small_run import diff
    from crossdiff.statistics.deltas import category_deltas
    from crossdiff.statistics.ensemble import ensemble_deltas

__all__ = [
    "Crosscoder",
    "category_deltas",
    "decoder_norms",
    "diff",
    "ensemble_deltas",
    "latent_scaling",
    "load_dictionary_learning",
    "open_pair",
    "open_run",
]

_HOMES = {
    "Crosscoder": "crossdiff.core.crosscoder",
    "category_deltas": "crossdiff.statistics.deltas",
    "decoder_norms": "crossdiff.core.decoder_norms",
    "diff": "crossdiff.notebook.small_run",
    "ensemble_deltas": "crossdiff.statistics.ensemble",
    "latent_scaling": "crossdiff.core.latent_table",
    "load_dictionary_learning": "crossdiff.io.interop",
    "open_pair": "crossdiff.notebook.pair",
    "open_run": "crossdiff.notebook.run",
}


moved.install()


def __getattr__(name: str) -> Any:
    """Import a public name from the module it lives in."""
    if name == "__version__":
        return importlib.metadata.version("crossdiff")
    if name not in _HOMES:
        raise AttributeError(f"module 'crossdiff' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(importlib.import_module(_HOMES[name]), name)
