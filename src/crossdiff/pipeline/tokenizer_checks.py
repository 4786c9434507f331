"""Checks before the first step: tokenizers that differ, and tokens without an embedding.

The harvest checks both again, for hub models too, but only once tokens exist. These checks read local
folders: equal files cost nothing, others are loaded.
"""

from __future__ import annotations

import filecmp
import json
from collections.abc import Iterable
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from crossdiff.data.corpus import CorpusSettings, FilesSource, as_mixture, fingerprint
from crossdiff.models.config_file import folder_sizes
from crossdiff.models.pair import ModelPair, ModelSettings
from crossdiff.models.tokenizers import (
    has_tokenizer,
    load_model_tokenizer,
    refuse_beyond,
    refuse_other_tokenizer,
)

FIRST_DOCUMENTS = 64
"""Documents whose tokens are checked where a model has fewer embeddings than its tokenizer ids."""


def check_tokenizers(reference: ModelSettings, pair: ModelPair, corpus: CorpusSettings) -> None:
    """ValueError when a model of the pair cannot read what the reference's tokenizer writes."""
    source = _tokenizer_folder(reference)
    if source is None:
        return
    for model in (pair.base, pair.tuned):
        folder = _tokenizer_folder(model)
        if folder is not None and not _are_alike(source, folder):
            _refuse_other(reference, model, _state(source), _state(folder))  # type: ignore[arg-type]
        sizes = folder_sizes(model.path)
        n_embeddings = sizes.n_embeddings if sizes is not None and model.adapter is None else None
        if n_embeddings is not None and _highest_id(source, _state(source)) >= n_embeddings:
            state, content = _state(source), fingerprint(corpus)
            _refuse_first_documents(reference, model, n_embeddings, corpus, content, state)  # type: ignore[arg-type]


def _tokenizer_folder(model: ModelSettings) -> Path | None:
    """The local folder of a model's tokenizer, its adapter's first; None for the hub, a blend or none."""
    folders = [Path(path).expanduser() for path in (model.adapter, model.path) if path is not None]
    if model.towards is not None or not all(folder.is_dir() for folder in folders):
        return None
    return next((folder for folder in folders if has_tokenizer(folder)), None)


def _state(folder: Path) -> tuple[int, int]:
    """Size and time of a folder's tokenizer.json, which key the caches below."""
    file = folder / "tokenizer.json"
    return (file.stat().st_size, file.stat().st_mtime_ns) if file.is_file() else (0, 0)


def _are_alike(one: Path, other: Path) -> bool:
    files = [folder / "tokenizer.json" for folder in (one, other)]
    return one == other or (
        all(file.is_file() for file in files) and filecmp.cmp(files[0], files[1], shallow=False)
    )


@lru_cache(maxsize=64)
def _refuse_other(reference: ModelSettings, model: ModelSettings, *_states: tuple[int, int]) -> None:
    """Load and compare: different files may still give the same ids."""
    refuse_other_tokenizer(
        _load(reference),
        _load(model),
        reference_name=f"{reference.name} ({reference.adapter or reference.path})",
        other_name=f"{model.name} ({model.adapter or model.path})",
    )


def _load(model: ModelSettings) -> Any:
    return load_model_tokenizer(model, str(Path(model.path).expanduser()))


@lru_cache(maxsize=64)
def _highest_id(folder: Path, _state: tuple[int, int]) -> int:
    """The highest id of a tokenizer.json; -1 where it cannot be read, which loading reports."""
    try:
        content = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
        vocabulary = content["model"]["vocab"]
        ids: Iterable[int] = vocabulary.values() if isinstance(vocabulary, dict) else range(len(vocabulary))
        return max((*ids, *(token["id"] for token in content.get("added_tokens") or ())), default=-1)
    except (OSError, ValueError, KeyError, TypeError):
        return -1


@lru_cache(maxsize=64)
def _refuse_first_documents(
    reference: ModelSettings,
    model: ModelSettings,
    n_embeddings: int,
    corpus: CorpusSettings,
    _content: str,
    _state: tuple[int, int],
) -> None:
    """Tokenise the first local documents and refuse a token without an embedding.

    A tokenizer may have more ids than the model has embeddings, as long as the corpus uses none of them.
    """
    from crossdiff.data.mixture import Mixture

    mixture = as_mixture(corpus)
    sources = tuple(source for source in mixture.sources if isinstance(source, FilesSource))
    if not sources:
        return
    tokenizer = _load(reference)
    documents = Mixture(mixture.model_copy(update={"sources": sources}), tokenizer, organism=None)
    for _, document in islice(documents, FIRST_DOCUMENTS):
        refuse_beyond(document.ids, n_embeddings, names=tokenizer.convert_ids_to_tokens, path=model.path)
