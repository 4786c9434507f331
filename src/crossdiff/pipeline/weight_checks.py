"""Checks before the first step: unreadable weight files, and heads whose logits the report leaves out.

Only headers are read; where they do not suffice, the model is built without memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

from crossdiff.models.config_file import folder_sizes, read_config
from crossdiff.models.pair import ORGANISM, ModelPair, ModelSettings
from crossdiff.models.weight_headers import CHOICES, Header, read_header, weight_files
from crossdiff.models.weight_names import UNEMBEDDINGS, needed_weights, outside_blocks

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
