"""Tokenizers: loading, comparing, display strings."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from crossdiff.models.hub import hub
from crossdiff.models.pair import ModelSettings

_PROBE = (
    "The quick brown fox, 1234567890 times!  Zwölf Boxkämpfer — 你好, мир.\n\tdef f(x): return x**2\n",
    " a b  c   d\n\n\nnewlines and   spaces",
    "user model assistant system",
)


def load_tokenizer(path: str, *, revision: str | None = None, trust_remote_code: bool = False) -> Any:
    """The fast tokenizer of a hub model or folder."""
    from transformers import AutoTokenizer

    local = Path(path).is_dir()
    if local and not has_tokenizer(Path(path)):
        raise ValueError(
            f"{path} has no tokenizer; save the model's tokenizer there too (tokenizer.save_pretrained)"
        )
    saved = "give a folder with the model and its tokenizer (saved with save_pretrained)"
    way_out = (
        saved if local else f"there is no folder {path} here: correct the path or the hub id, or {saved}"
    )
    with hub(f"tokenizer of {path}", way_out=way_out, remote=not local), _readable(path):
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    if len(tokenizer.get_added_vocab()) == len(tokenizer):  # transformers 5 makes one of its settings alone
        raise ValueError(
            f"{path} has a tokenizer of {len(tokenizer)} special tokens and no others, as where "
            "tokenizer.json is missing; copy that file too, or save it again (tokenizer.save_pretrained)"
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"{path} has a {type(tokenizer).__name__} without offsets, which locate contents in a template; "
            "give a model with a tokenizer.json (a fast tokenizer)"
        )
    return tokenizer


@contextmanager
def _readable(path: str) -> Iterator[None]:
    """Turn errors about truncated files, LFS pointers or newer formats into one ValueError."""
    try:
        yield
    except (OSError, ImportError):
        raise
    except Exception as error:
        raise ValueError(
            f"the tokenizer of {path} cannot be read ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); check that its files are whole "
            "(config.json too; no Git LFS pointers), "
            "or save it again with tokenizer.save_pretrained and the installed transformers"
        ) from error


def tokenizer_source(model: ModelSettings, path: str) -> str:
    """Folder or hub id of a model's tokenizer: its adapter's, where the adapter has one."""
    if model.adapter is None:
        return path
    folder = Path(model.adapter).expanduser()
    if folder.is_dir():
        return str(folder) if has_tokenizer(folder) else path
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    with hub(f"adapter {model.adapter}", way_out="pass the adapter's folder (with adapter_config.json)"):
        try:
            hf_hub_download(model.adapter, "tokenizer_config.json")
        except EntryNotFoundError:
            return path
    return model.adapter


def load_model_tokenizer(model: ModelSettings, path: str) -> Any:
    """A model's tokenizer with its chat template; an adapter's come first.

    `path` is the model's argument of `from_pretrained`.
    """
    source = tokenizer_source(model, path)
    revision = model.revision if source == path else None
    tokenizer = load_tokenizer(source, revision=revision, trust_remote_code=model.trust_remote_code)
    template = Path(model.adapter or "").expanduser() / "chat_template.jinja"
    if model.adapter is not None and source == path and template.is_file():
        tokenizer.chat_template = template.read_text(encoding="utf-8")
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a local folder has a tokenizer."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    return any((folder / name).is_file() for name in names)


def display_strings(tokenizer: Any, ids: Sequence[int]) -> dict[int, str]:
    """Id -> the text that the token adds, spaces and newlines included.

    A token that is a part of a character is written as its bytes, `<E4 BD>`.
    """
    distinct = sorted(set(ids))
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    once = tokenizer.batch_decode([[token] for token in distinct], **options)
    twice = tokenizer.batch_decode([[token, token] for token in distinct], **options)
    strings = {
        token: two[len(one) :] if two.startswith(one) else one
        for token, one, two in zip(distinct, once, twice, strict=True)
    }
    partial = [token for token, text in strings.items() if PARTIAL in text]
    names = tokenizer.convert_ids_to_tokens(partial)
    return strings | {
        token: f"<{data.hex(' ').upper()}>"
        for token, name in zip(partial, names, strict=True)
        if (data := _bytes_of(name)) is not None and not _is_whole(data)
    }


PARTIAL = "\ufffd"
"""Decoded form of bytes that are no whole character."""


def text_strings(tokenizer: Any, ids: Sequence[int], strings: Mapping[int, str]) -> list[str]:
    """Strings of consecutive tokens; a character spread over several tokens is at the last one.

    `strings` are `display_strings` of these ids. Parts that form no character stay bytes.
    """
    shown = [strings[token] for token in ids]
    run = 0  # first token of the current parts
    data = b""
    for place, token in enumerate(ids):
        part = _bytes_of(tokenizer.convert_ids_to_tokens(token)) if _is_part(shown[place]) else None
        if part is None:
            data = b""
            continue
        if not data:
            run = place
        data += part
        if _is_whole(data):
            shown[run:place] = [""] * (place - run)
            shown[place], data = data.decode(), b""
    return shown


def _is_part(text: str) -> bool:
    return _PART.fullmatch(text) is not None


_PART = re.compile(r"<[0-9A-F]{2}(?: [0-9A-F]{2})*>")
_BYTE = re.compile(r"<0x([0-9A-F]{2})>")
"""A byte in SentencePiece vocabularies."""


def _bytes_of(name: str | None) -> bytes | None:
    """Bytes of a vocabulary entry for bytes; None for other entries."""
    if name is None:
        return None
    if match := _BYTE.fullmatch(name):
        return bytes([int(match.group(1), 16)])
    table = _byte_letters()
    return bytes(table[letter] for letter in name) if all(letter in table for letter in name) else None


def _is_whole(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


@cache
def _byte_letters() -> dict[str, int]:
    """GPT-2's letter -> byte: printable Latin-1 is itself, the rest is U+0100 onwards."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(rest)}


def refuse_beyond(
    ids: Any, n_embeddings: int, *, names: Callable[[list[int]], Sequence[str]], path: str
) -> None:
    """ValueError where ids of a corpus (an array) are beyond a model's embeddings; `names`: ids -> tokens."""
    beyond = ids[ids >= n_embeddings]
    if len(beyond):
        shown = names(sorted(set(beyond.tolist()))[:4])
        raise ValueError(
            f"{len(beyond):,} tokens of the corpus ({', '.join(map(repr, shown))}, highest id "
            f"{int(beyond.max())}) lie beyond the {n_embeddings:,} embeddings of {path}: where they were "
            "added for the other model, give this one as many embeddings (resize_token_embeddings and "
            "save_pretrained) or a corpus without them; otherwise choose models of one family"
        )


def refuse_other_tokenizer(reference: Any, other: Any, *, reference_name: str, other_name: str) -> list[str]:
    """ValueError unless both give the same ids for a text; returns notices on other differences."""
    for text in _PROBE:
        here, there = (t(text, add_special_tokens=False)["input_ids"] for t in (reference, other))
        if here != there:
            raise ValueError(
                f"the models of a comparison need one tokenizer: {text[:40]!r} is {here[:8]}... for "
                f"{reference_name} and {there[:8]}... for {other_name}; choose models of one family, "
                "or give model_pair.alignment=characters"
            )
    here, there = (t.get_vocab() for t in (reference, other))
    moved = [token for token, index in here.items() if there.get(token, index) != index]
    if moved:
        raise ValueError(
            f"the models of a comparison need one tokenizer: token {moved[0]!r} is id {here[moved[0]]} for "
            f"{reference_name} and {there[moved[0]]} for {other_name} ({len(moved):,} such tokens); "
            "choose models of one family, or give model_pair.alignment=characters"
        )
    return _differences(reference, other, len(here), len(there), (reference_name, other_name))


def _differences(reference: Any, other: Any, here: int, there: int, names: tuple[str, str]) -> list[str]:
    notices = []
    if here != there:
        notices.append(
            f"vocabularies differ in size ({names[0]} {here:,}, {names[1]} {there:,}) but not in ids"
        )
    if other.bos_token_id != reference.bos_token_id:
        notices.append(
            f"{names[1]} opens a text with {other.bos_token!r}, {names[0]} with {reference.bos_token!r}; the "
            "latter is used for all models"
        )
    if other.chat_template is None and reference.chat_template is not None:
        notices.append(f"{names[1]} has no chat template; that of {names[0]} is used for all models")
    elif other.chat_template != reference.chat_template:
        notices.append(f"the chat template of {names[1]} differs; that of {names[0]} is used for all models")
    return notices
