"""Another tool's activations in place of tokens and harvest (`source=files`).

The artifacts have the form of `tokens` and `harvest`. The token set names what the files do not hold
(documents, template marks).
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from crossdiff.data.settings import ImportedSource
from crossdiff.io.file_hashes import file_sha256
from crossdiff.io.progress import show_notices
from crossdiff.models.pair import ORGANISM, ModelSettings, is_folder, resolve
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import ImportedInputs

WEIGHTS = (".safetensors", ".bin", ".pt", ".gguf", ".md", ".png")
"""Endings of files that do not belong to a model's tokenizer."""


class ImportTokensInputs(ImportedInputs):
    """The description of the rows; the key holds the files' content, not their paths."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"rows"})

    rows: ImportedSource
    """Paths of ids, texts, offsets and kinds (`data.imported.rows.with_files_beside`)."""
    n_rows: int
    content: str
    """`rows_content(rows)`."""
    tokenizer: ModelSettings | None
    """The model whose tokenizer made the ids; None without ids and texts."""
    tokenizer_fingerprint: str | None


class ImportHarvestInputs(ImportedInputs):
    """One model's activations at one layer."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"path"})

    model: ModelSettings
    """The model that made the activations; only its unembedding is read."""
    fingerprint: str
    """`models.pair.fingerprint(model)`."""
    path: str
    content: str
    """`array_content(path)`."""
    layer: int


def array_content(path: str) -> str:
    """sha256 over the content of an array's files; their names do not count."""
    from crossdiff.data.imported.arrays import array_files

    return _joined(file_sha256(file) for file in array_files(path))


def rows_content(rows: ImportedSource) -> str:
    """sha256 over the content of ids, texts, offsets and kinds."""
    read = {"ids": array_content, "texts": texts_content, "offsets": array_content, "kinds": array_content}
    given = ((role, getattr(rows, role)) for role in read)
    return _joined(f"{role} {read[role](path)}" for role, path in given if path is not None)


def texts_content(path: str) -> str:
    """sha256 over files of documents, and over how they are read (.txt: one document per line)."""
    from crossdiff.data.corpus import expand, kind_of

    if not Path(path).expanduser().exists():
        raise ValueError(f"source.texts={path} does not exist; give the documents of the rows")
    files = ((kind_of(file), file_sha256(file)) for file in expand([path]))
    return _joined(f"lines {content}" if kind == ".txt" else content for kind, content in files)


def tokenizer_fingerprint(model: ModelSettings) -> str:
    """Hash of a local model's files without weights, or hub id with revision."""
    path = model.path if model.adapter is None else model.adapter
    if path.startswith(ORGANISM) or not is_folder(path):
        return f"{path}@{model.revision or 'main'}"
    files = sorted(file for file in Path(path).expanduser().iterdir() if file.is_file())
    read = (file for file in files if file.suffix not in WEIGHTS and not file.name.startswith("."))
    return _joined(f"{file.name} {file_sha256(file)}" for file in read)


def _joined(parts: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def import_tokens(
    inputs: ImportTokensInputs, parents: Mapping[str, Path], draft: Path, _runtime: Runtime
) -> dict[str, Any]:
    """Write the token set of the rows, with the tokenizer where ids are known."""
    from crossdiff.data.imported.rows import read_rows, write_rows
    from crossdiff.models.tokenizers import load_model_tokenizer

    if rows_content(inputs.rows) != inputs.content:
        raise ValueError(
            "the files of source= have changed since this step was planned; give the command again"
        )
    tokenizer = None
    if inputs.tokenizer is not None:
        path = resolve(inputs.tokenizer, parents.get("organism"))
        tokenizer = load_model_tokenizer(inputs.tokenizer, path)
    rows = read_rows(inputs.rows, inputs.n_rows, tokenizer)
    if tokenizer is not None:
        tokenizer.save_pretrained(draft / "tokenizer")
    identity = hashlib.sha256(json.dumps(inputs.identity(), sort_keys=True).encode()).hexdigest()
    details = write_rows(rows, draft, identity=identity).details
    show_notices("tokens", details["notices"])
    names = ("n_documents", "n_tokens", "tokens_per_kind", "unknown", "notices")
    return {"imported": "rows", **{name: details[name] for name in names}}


def import_harvest(
    inputs: ImportHarvestInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Copy one model's rows into shards; ValueError for NaN rows."""
    from crossdiff.data.imported.layer import copy_layer
    from crossdiff.data.tokens import TokenSet

    if array_content(inputs.path) != inputs.content:
        raise ValueError(f"{inputs.path} has changed since this step was planned; give the command again")
    figures = copy_layer(
        inputs.model.name,
        inputs.path,
        TokenSet.open(parents["tokens"]),
        draft,
        layer=inputs.layer,
        progress=runtime.progress,
    )
    show_notices(f"import {inputs.model.name}", figures["notices"])
    return figures
