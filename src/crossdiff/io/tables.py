"""Versioned tables (parquet) and JSON files, written aside and renamed; rows of data frames."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray


_KIND, _VERSION = b"crossdiff.kind", b"crossdiff.version"


@contextmanager
def errors_name(path: Path) -> Iterator[None]:
    """Add the path to an OSError without one, such as a full disk while writing to an open file."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def write_table(frame: pd.DataFrame, path: Path, *, version: int, kind: str) -> None:
    """Write `frame` as parquet with `kind` and `version` in its metadata."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_pandas(frame, preserve_index=False)
    metadata = {**(table.schema.metadata or {}), _KIND: kind.encode(), _VERSION: str(version).encode()}
    aside = path.with_name(f".{path.name}.part")
    with errors_name(path):
        pq.write_table(table.replace_schema_metadata(metadata), aside)
    os.replace(aside, path)


def read_table(path: Path, *, kind: str, version: int = 1) -> pd.DataFrame:
    """Read a table of `write_table`; ValueError for another kind or a newer version."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except pa.ArrowInvalid as error:
        raise ValueError(
            f"{path} is not a readable parquet file: {error}; rebuild the step that wrote it"
        ) from None
    metadata = table.schema.metadata or {}
    stored = metadata.get(_KIND, b"?").decode()
    if stored != kind:
        raise ValueError(f"{path} is a table of {stored!r}, expected {kind!r}; give the file of that kind")
    if int(metadata[_VERSION]) > version:
        raise ValueError(
            f"{path} has version {int(metadata[_VERSION])} of {kind!r}, this crossdiff reads up to "
            f"{version}; update crossdiff"
        )
    return table.to_pandas()


def write_torch(data: Any, path: Path) -> None:
    """`torch.save` that raises the OSError of a full disk, which PyTorch reports as `unexpected pos`."""
    import torch

    with errors_name(path), path.open("wb") as handle:
        file = _Remembering(handle)
        try:
            torch.save(data, file)  # pyright: ignore[reportArgumentType]  it needs write and flush only
        except RuntimeError:
            if file.error is not None:
                raise file.error from None
            raise


class _Remembering:
    """A file that keeps the first OSError of writing, which PyTorch's writer swallows."""

    def __init__(self, handle: IO[bytes]) -> None:
        self.handle = handle
        self.error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return self.handle.write(data)
        except OSError as error:
            self.error = self.error or error
            raise

    def flush(self) -> None:
        self.handle.flush()


def write_json(data: Any, path: Path) -> None:
    """Write JSON aside and rename; ValueError for NaN, so a missing figure has to be None."""
    write_text(json.dumps(data, indent=1, allow_nan=False, ensure_ascii=False) + "\n", path)


def write_text(text: str, path: Path) -> None:
    """Write a text aside and rename it, so that no reader sees half of it."""
    aside = path.with_name(f".{path.name}.part")
    with errors_name(path):
        aside.write_text(text, encoding="utf-8", newline="\n")
    os.replace(aside, path)


def read_json(path: Path) -> Any:
    """Read one JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def read_versioned_json(path: Path, *, format: str, version: int, way_out: str) -> dict[str, Any]:
    """A JSON object of this `format` and `version`; ValueError with `way_out` for another."""
    record = read_json(path)
    if record.get("format") != format or record.get("version") != version:
        raise ValueError(
            f"{path} is {record.get('format')!r} version {record.get('version')!r}, this crossdiff reads "
            f"{format!r} version {version}; {way_out}"
        )
    return record


def write_jsonl(rows: Iterable[Mapping[str, Any]], path: Path, *, ascii_only: bool = False) -> None:
    """Write one JSON object per line aside and rename; ValueError for NaN.

    `ascii_only` writes escapes, for texts (replies of a server) that may have half a surrogate pair, which
    has no UTF-8.
    """
    aside = path.with_name(f".{path.name}.part")
    with errors_name(path), aside.open("w", encoding="utf-8", newline="\n") as handle:
        for row in rows:
            handle.write(json.dumps(row, ensure_ascii=ascii_only, allow_nan=False) + "\n")
    os.replace(aside, path)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one per line; only line feeds end lines, not U+2028."""
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.split("\n") if line.strip()]


def read_deltas(path: Path) -> pd.DataFrame:
    """A delta table from its CSV file; only empty cells are missing, so `null` can be a category."""
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
    import numpy as np

    return np.asarray(frame[column], dtype=np.float64)


def where(frame: pd.DataFrame, **equal: str) -> pd.DataFrame:
    """The rows whose named columns equal the given texts."""
    import numpy as np

    keep = np.ones(len(frame), dtype=bool)
    for column, wanted in equal.items():
        keep &= _equals(frame, column, wanted)
    return masked(frame, keep)


def masked(frame: pd.DataFrame, keep: NDArray[np.bool_]) -> pd.DataFrame:
    """The rows where `keep` is true."""
    import numpy as np

    return frame.iloc[np.flatnonzero(keep)]


def alive(latents: pd.DataFrame) -> pd.DataFrame:
    """The latents of a latent table that were active at least once."""
    return masked(latents, ~_equals(latents, "kind", "dead"))


def known(frame: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The rows in which none of `columns` is missing."""
    import numpy as np

    keep = np.ones(len(frame), dtype=bool)
    for column in columns:
        keep &= np.isfinite(values(frame, column))
    return masked(frame, keep)


def _equals(frame: pd.DataFrame, column: str, wanted: str) -> NDArray[np.bool_]:
    import numpy as np

    column_values = frame[column].astype("object")
    return np.asarray(column_values, dtype=object) == wanted
