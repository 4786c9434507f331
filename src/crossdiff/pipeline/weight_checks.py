"""Checks before the first step: weight files, heads whose logits the report leaves out, tokenizers.

Of weights only headers are read; where they do not suffice, the model is built without memory. The harvest
checks tokenizers and embeddings again, for hub models too, but only once tokens exist. These checks read
local folders: equal files cost nothing, others are loaded.
"""

from __future__ import annotations

import filecmp
import json
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import Any

from crossdiff.data.corpus import CorpusSettings, FilesSource, MixtureCorpus, as_mixture, fingerprint
from crossdiff.models.config_file import folder_sizes, read_config
from crossdiff.models.pair import ORGANISM, ModelPair, ModelSettings
from crossdiff.models.tokenizers import (
    has_tokenizer,
    load_model_tokenizer,
    refuse_beyond,
    refuse_other_tokenizer,
)
from crossdiff.models.weight_names import (
    CHOICES,
    UNEMBEDDINGS,
    Header,
    needed_weights,
    outside_blocks,
    read_header,
    weight_files,
)

_NORM = re.compile(r"norm|(?:^|\.)ln_", re.IGNORECASE)
_EMBEDDING = re.compile(r"embed|wte|word_embeddings", re.IGNORECASE)
_PROJECTION = "project_"


def check_weights(pair: ModelPair, *, layer: int) -> None:
    """ValueError when a local weight file that the harvest needs is truncated or a Git LFS pointer."""
    for model in (pair.base, pair.tuned):
        if _is_local(model):
            files = weight_files(model.path) or {}
            needed = needed_weights({name: str(file) for name, file in files.items()}, layer + 1)
            for file in sorted({*needed.values()}):
                if Path(file).is_file():  # the harvest names what is missing
                    _refuse_whole_numbers(model, read_header(Path(file)))


def _refuse_whole_numbers(model: ModelSettings, header: Header) -> None:
    """Refuse integer weights without quantisation scales: transformers would take them as values."""
    whole = [
        name
        for name, kind in header.numbers.items()
        if kind[:1] in "IU" and name.endswith(".weight") and len(header.shapes[name]) == 2
    ]
    if whole and "quantization_config" not in read_config(model.path):
        raise ValueError(
            f"{model.path} holds {len(whole):,} matrices of whole numbers, such as {whole[0]}, "
            "and no quantization_config in its config.json that says how they are scaled; give the model in "
            "bfloat16 or float32"
        )


def head_notices(pair: ModelPair) -> Iterator[str]:
    """A line per local model whose head or final norm cannot be read, so that the report has no logits."""
    for model in (pair.base, pair.tuned):
        if _is_local(model) and _has_weights(model) and (reason := _unreadable(model, _state(model))):  # type: ignore[arg-type]
            yield f"{pair.name}: the report will have no logits of the {model.name} model: {reason}"


def _is_local(model: ModelSettings) -> bool:
    path = Path(model.path).expanduser()
    return not model.path.startswith(ORGANISM) and model.towards is None and (path / "config.json").is_file()


def _has_weights(model: ModelSettings) -> bool:
    """Whether the folder has weight files; without any, the harvest's message lists the names."""
    return any((Path(model.path).expanduser() / name).is_file() for name in CHOICES)


def _state(model: ModelSettings) -> tuple[tuple[str, int, int], ...]:
    """Names, sizes and times of the folder's files, which key the cache below."""
    files = sorted(path for path in Path(model.path).expanduser().iterdir() if path.is_file())
    return tuple((file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=64)
def _unreadable(model: ModelSettings, _state: tuple[tuple[str, int, int], ...]) -> str | None:
    """Why the logits of a direction cannot be computed; None where they can."""
    if _is_plain(model.path):
        return None
    from safetensors import SafetensorError

    from crossdiff.models.unembedding import load_unembedding

    try:
        named = (weight_files(model.path) or {}).items()
        for file in sorted({file for name, file in named if outside_blocks(name) and file.is_file()}):
            read_header(file)
        load_unembedding(model, str(Path(model.path).expanduser()), vocab_size=1)
    except (ValueError, SafetensorError) as error:
        return str(error)
    return None


def _is_plain(path: str) -> bool:
    """Whether headers show a head as wide as the blocks and a norm outside them, as most models have."""
    sizes = folder_sizes(path)
    try:
        files = {name: file for name, file in (weight_files(path) or {}).items() if outside_blocks(name)}
        shapes = {name: read_header(file).shapes[name] for name, file in files.items()}
    except (OSError, KeyError, ValueError):
        return False
    if sizes is None or sizes.d_model is None or any(_PROJECTION in name for name in shapes):
        return False
    heads = [shape for name, shape in shapes.items() if f".{name}".endswith(UNEMBEDDINGS)]
    if not heads and sizes.is_tied is False:
        return False
    embeddings = [shape for name, shape in shapes.items() if _EMBEDDING.search(name) and len(shape) == 2]
    norms = [shape for name, shape in shapes.items() if _NORM.search(name)]
    wide = (heads or embeddings) and all(shape[-1] == sizes.d_model for shape in heads or embeddings)
    return bool(wide) and (sizes.d_model,) in norms


FIRST_DOCUMENTS = 64
"""Documents whose tokens are checked where a model has fewer embeddings than its tokenizer ids."""


def check_tokenizers(reference: ModelSettings, pair: ModelPair, corpus: CorpusSettings) -> None:
    """ValueError when a model cannot read what the reference's tokenizer writes (two families: its own)."""
    if pair.alignment == "characters":
        for model in (pair.base, pair.tuned):
            itself = {"base": model, "tuned": model, "alignment": "tokens"}
            check_tokenizers(model, pair.model_copy(update=itself), corpus)
        _refuse_first_unaligned(pair, corpus)
        return
    source = _tokenizer_folder(reference)
    if source is None:
        if _is_local(reference) and _has_weights(reference) and reference.adapter is None:
            _load(reference)  # says that the folder has none
        return
    for model in (pair.base, pair.tuned):
        folder = _tokenizer_folder(model)
        if folder is not None and not _are_alike(source, folder):
            _refuse_other(reference, model, _folder_state(source), _folder_state(folder))  # type: ignore[arg-type]
        sizes = folder_sizes(model.path)
        n_embeddings = sizes.n_embeddings if sizes is not None and model.adapter is None else None
        if n_embeddings is not None and _highest_id(source, _folder_state(source)) >= n_embeddings:
            state, content = _folder_state(source), fingerprint(corpus)
            _refuse_first_documents(reference, model, n_embeddings, corpus, content, state)  # type: ignore[arg-type]


def _refuse_first_unaligned(pair: ModelPair, corpus: CorpusSettings) -> None:
    """ValueError where two families cannot both read the first local documents (token ids, no template)."""
    from crossdiff.data.alignment import aligned_places, read_by_both
    from crossdiff.pipeline.alignment_checks import aligned_model

    shown, other, sources = pair.template_model, aligned_model(pair), _local(corpus)
    if other is None or not sources.sources or None in map(_tokenizer_folder, (shown, other)):
        return
    both = read_by_both(sources, (_load(shown), _load(other)), None)
    for first, second in islice(both, FIRST_DOCUMENTS):
        aligned_places(first, second, [{}, {}])


def _local(corpus: CorpusSettings) -> MixtureCorpus:
    """The sources of the corpus that are files on this machine."""
    mixture = as_mixture(corpus)
    return mixture.model_copy(
        update={"sources": tuple(source for source in mixture.sources if isinstance(source, FilesSource))}
    )


def _tokenizer_folder(model: ModelSettings) -> Path | None:
    """The local folder of a model's tokenizer, its adapter's first; None for the hub, a blend or none."""
    folders = [Path(path).expanduser() for path in (model.adapter, model.path) if path is not None]
    if model.towards is not None or not all(folder.is_dir() for folder in folders):
        return None
    return next((folder for folder in folders if has_tokenizer(folder)), None)


def _folder_state(folder: Path) -> tuple[int, int]:
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

    local = _local(corpus)
    if not local.sources:
        return
    tokenizer = _load(reference)
    documents = Mixture(local, tokenizer, organism=None)
    for _, document in islice(documents, FIRST_DOCUMENTS):
        refuse_beyond(document.ids, n_embeddings, names=tokenizer.convert_ids_to_tokens, path=model.path)
