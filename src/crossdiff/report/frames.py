"""Reading data frames: rows as objects, columns as arrays, selections that stay frames."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pandas as pd


def read_deltas(path: Path) -> pd.DataFrame:
    """A delta table from its CSV file; only empty cells are missing, so a category may be called `null`."""
    import pandas as pd

    texts: dict[Any, Any] = dict.fromkeys(
        ("level", "name", "parent", "counts_reference", "counts_treatment", "holds_against_median"), str
    )
    return pd.read_csv(path, dtype=texts, keep_default_na=False, na_values=[""])


def rows_of(frame: pd.DataFrame) -> list[Any]:
    """The rows of `frame` as objects with one attribute per column."""
    return list(frame.itertuples(index=False))


def values(frame: pd.DataFrame, column: str) -> NDArray[np.float64]:
    """A column as floats, missing values NaN."""
    return np.asarray(frame[column], dtype=np.float64)


def where(frame: pd.DataFrame, **equal: str) -> pd.DataFrame:
    """The rows whose named columns hold the given text."""
    keep = np.ones(len(frame), dtype=bool)
    for column, wanted in equal.items():
        keep &= _equals(frame, column, wanted)
    return masked(frame, keep)


def masked(frame: pd.DataFrame, keep: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows where `keep` is true."""
    return frame.iloc[np.flatnonzero(keep)]


def alive(latents: pd.DataFrame) -> pd.DataFrame:
    """The latents of a latent table that were active at least once."""
    return masked(latents, ~_equals(latents, "kind", "dead"))


def known(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows in which none of `columns` is missing."""
    keep = np.ones(len(frame), dtype=bool)
    for column in columns:
        keep &= np.isfinite(values(frame, column))
    return masked(frame, keep)


def _equals(frame: pd.DataFrame, column: str, wanted: str) -> NDArray[np.bool_]:
    found = frame[column].astype("object")
    return np.asarray(found, dtype=object) == wanted
