"""Tokenizers: loading, comparing, display strings."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff.models.hub import hub

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
            f"{path} holds no tokenizer; save the model's tokenizer there too (tokenizer.save_pretrained)"
        )
    way_out = "pass a folder that holds the model and its tokenizer (saved with save_pretrained) instead"
    with hub(f"tokenizer of {path}", way_out=way_out, remote=not local):
        tokenizer = AutoTokenizer.from_pretrained(
            path, revision=revision, trust_remote_code=trust_remote_code
        )
    if not tokenizer.is_fast:
        raise ValueError(
            f"{path} has a {type(tokenizer).__name__} without offsets, which tell content from template; "
            "give a model with a tokenizer.json (a fast tokenizer)"
        )
    return tokenizer


def has_tokenizer(folder: Path) -> bool:
    """Whether a local model folder holds a tokenizer of its own."""
    names = ("tokenizer.json", "tokenizer.model", "vocab.json", "tokenizer_config.json")
    return any((folder / name).is_file() for name in names)


def display_strings(tokenizer: Any, ids: Sequence[int]) -> dict[int, str]:
    """What each token adds to a text, spaces and newlines included: id -> string."""
    distinct = sorted(set(ids))
    options = {"skip_special_tokens": False, "clean_up_tokenization_spaces": False}
    once = tokenizer.batch_decode([[token] for token in distinct], **options)
    twice = tokenizer.batch_decode([[token, token] for token in distinct], **options)
    return {
        token: two[len(one) :] if two.startswith(one) else one
        for token, one, two in zip(distinct, once, twice, strict=True)
    }


def refuse_other_tokenizer(reference: Any, other: Any, *, reference_name: str, other_name: str) -> list[str]:
    """Raise unless both give the same ids for the same text; returns notices about what else differs."""
    for text in _PROBE:
        here, there = (t(text, add_special_tokens=False)["input_ids"] for t in (reference, other))
        if here != there:
            raise ValueError(
                f"the models of a comparison need one tokenizer: {text[:40]!r} is {here[:8]}... for "
                f"{reference_name} and {there[:8]}... for {other_name}; choose models of one family"
            )
    here, there = (t.get_vocab() for t in (reference, other))
    moved = [token for token, index in here.items() if there.get(token, index) != index]
    if moved:
        raise ValueError(
            f"the models of a comparison need one tokenizer: token {moved[0]!r} is id {here[moved[0]]} for "
            f"{reference_name} and {there[moved[0]]} for {other_name} ({len(moved):,} such tokens); "
            "choose models of one family"
        )
    return _differences(reference, other, len(here), len(there), (reference_name, other_name))


def _differences(reference: Any, other: Any, here: int, there: int, names: tuple[str, str]) -> list[str]:
    notices = []
    if here != there:
        notices.append(
            f"vocabularies differ in size ({names[0]} {here:,}, {names[1]} {there:,}) but not in ids"
        )
    if other.chat_template is None and reference.chat_template is not None:
        notices.append(
            f"{names[1]} has no chat template of its own; that of {names[0]} is used for all models"
        )
    elif other.chat_template != reference.chat_template:
        notices.append(f"the chat template of {names[1]} differs; that of {names[0]} is used for all models")
    return notices
