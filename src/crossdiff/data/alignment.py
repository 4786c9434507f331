"""Tokens of two tokenizers that end at the same character of a text: there both models have read the same.

The first tokenizer's tokens are the rows of the pair. The second tokenizer's are a token set of their own, in
the folder `aligned` of the tokens artifact, with the place of every row there.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdiff.data.corpus import MixtureCorpus
from crossdiff.data.mixture import Mixture
from crossdiff.data.row_content import BadRecord
from crossdiff.data.tokenise import Tokenised, tokenise
from crossdiff.data.tokens import ALIGNED, NO_PLACE, PLACES, TokenKind, TokenSet, write_token_set
from crossdiff.io.progress import bar

DOCUMENTS_AT_A_TIME = 64
SPACE = "Ġ"
"""The byte-level letter for a space, the one white space that spans of byte-level tokens may leave out."""
WHITE = (SPACE, "Ċ", "ĉ", "č", "▁", " ", "\n", "\t", "\r")
"""Last letters of vocabulary entries for white space: byte-level, then SentencePiece and plain ones."""
MODELS = ("shown", "aligned")


def align(
    corpus: MixtureCorpus,
    tokenizers: tuple[Any, Any],
    shown: TokenSet,
    *,
    organism: Path | None,
    progress: bool,
) -> dict[str, dict[str, int]]:
    """Write the second tokenizer's token set and the places of `shown`'s rows; returns counts per model.

    The corpus is read once more. `shown` is the finished token set of the first tokenizer.
    """
    assert shown.folder is not None
    found, trimmed = _Aligned(), [ending_in_white_space(tokenizer) for tokenizer in tokenizers]
    with bar(total=shown.n_tokens, description="align", unit="tok", enabled=progress) as seen:
        for first, second in read_by_both(corpus, tokenizers, organism):
            found.add(first, second, trimmed)
            seen.update(len(first.ids))
    if not np.array_equal(np.concatenate(found.first_ids), shown.ids.numpy()):
        raise ValueError(
            "the corpus has changed since its tokens were made, so they cannot be aligned; run the same "
            "command again without the draft of this step"
        )
    if not found.counts["shown"]["aligned"]:
        raise ValueError(
            "no token of the two tokenizers ends at one character, so there is nothing to compare; give "
            "documents of plain text, or two models that can read this one"
        )
    _write(found, tokenizers[1], shown, shown.folder / ALIGNED)
    return {model: dict(found.counts[model]) for model in MODELS}


def described(counts: dict[str, dict[str, int]]) -> Iterator[str]:
    """One sentence per model on what was aligned and what was dropped, by kind; one more without BOS."""
    for model, count in counts.items():
        dropped = {name: n for name, n in count.items() if name not in ("tokens", "aligned") and n}
        listed = ", ".join(f"{n:,} {name}" for name, n in sorted(dropped.items())) or "none"
        share = count["aligned"] / count["tokens"]
        yield (
            f"alignment, {model} tokenizer: {count['aligned']:,} of {count['tokens']:,} tokens "
            f"({share:.1%}) end where one of the other does; dropped: {listed}"
        )
        if model == "aligned" and not count["bos"]:  # of the shown one the token set says it
            yield (
                "the aligned tokenizer has no BOS token: the first token of a document takes its place in "
                "attention; mask.skip_first=1 drops it"
            )


def aligned_places(first: Tokenised, second: Tokenised, trimmed: list[dict[int, str]]) -> np.ndarray:
    """Per token of `first` the token of `second` that ends at the same character, else `NO_PLACE`.

    Only text tokens are aligned, inside contents that both templates render alike (`_contents`).
    """
    places = np.full(len(first.ids), NO_PLACE, dtype=np.int64)
    if first.rendered is None or second.rendered is None:
        raise ValueError(
            f"{first.record.place} holds token ids, which two tokenizers cannot share; give its text"
        )
    contents = _contents(first, second)
    keys, rows = zip(
        *(
            _ends(item, [pair[side] for pair in contents], ids)
            for side, (item, ids) in enumerate(zip((first, second), trimmed, strict=True))
        ),
        strict=True,
    )
    _, here, there = np.intersect1d(*keys, assume_unique=True, return_indices=True)
    places[rows[0][here]] = rows[1][there]
    return places


@dataclass
class _Aligned:
    """The second tokenizer's documents, the places of the first one's tokens, and counts."""

    first_ids: list[np.ndarray] = field(default_factory=list)
    ids: list[np.ndarray] = field(default_factory=list)
    kinds: list[np.ndarray] = field(default_factory=list)
    places: list[np.ndarray] = field(default_factory=list)
    n_tokens: int = 0
    counts: dict[str, Counter[str]] = field(default_factory=lambda: {model: Counter() for model in MODELS})

    def add(self, first: Tokenised, second: Tokenised, trimmed: list[dict[int, str]]) -> None:
        places = aligned_places(first, second, trimmed)
        has_place = places != NO_PLACE
        taken = np.zeros(len(second.ids), dtype=bool)
        taken[places[has_place]] = True
        for model, item, aligned in zip(MODELS, (first, second), (has_place, taken), strict=True):
            kinds = np.bincount(item.kind[~aligned], minlength=len(TokenKind))
            self.counts[model].update({kind.name.lower(): int(kinds[kind]) for kind in TokenKind})
            self.counts[model].update({"tokens": len(aligned), "aligned": int(aligned.sum())})
        self.first_ids.append(first.ids)
        self.ids.append(second.ids)
        self.kinds.append(second.kind)
        self.places.append(np.where(has_place, places + self.n_tokens, NO_PLACE))
        self.n_tokens += len(second.ids)


def read_by_both(
    corpus: MixtureCorpus, tokenizers: tuple[Any, Any], organism: Path | None
) -> Iterator[tuple[Tokenised, Tokenised]]:
    """Every document of the corpus, read by both tokenizers; ValueError for one that the second cannot read.

    By then the first one's tokens are made, so that `corpus.skip_bad` comes too late.
    """
    mixture = iter(Mixture(corpus, tokenizers[0], organism=organism))
    while batch := list(islice(mixture, DOCUMENTS_AT_A_TIME)):
        records = [item.record for _, item in batch]
        for (_, first), second in zip(
            batch, tokenise(tokenizers[1], records, context=corpus.context), strict=True
        ):
            if isinstance(second, BadRecord):
                raise ValueError(
                    f"{second}; of two families that skips only what the template of the shown tokens "
                    "refuses, so give model_pair.template with this model, or leave such chats out"
                )
            if not len(second.ids):
                raise ValueError(
                    f"{first.record.place} has no token for {tokenizers[1].name_or_path}; leave it out"
                )
            yield first, second


def _contents(first: Tokenised, second: Tokenised) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Spans of the contents that have the same characters in both rendered texts.

    None where a template hides the place of a content, because contents are paired by their order.
    """
    one, other = first.rendered, second.rendered
    assert one is not None
    assert other is not None
    if one.n_not_located or other.n_not_located or len(one.contents) != len(other.contents):
        return []
    return [
        (here, there)
        for here, there in zip(one.contents, other.contents, strict=True)
        if one.text[slice(*here)] == other.text[slice(*there)]
    ]


def _ends(
    item: Tokenised, spans: list[tuple[int, int]], trimmed: dict[int, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Unique keys (content, characters of it that were read) of text tokens, ascending, and their places.

    Where tokens share a character (its bytes), only the last one has read all of it, and may go on into the
    next character; the others have no end (`Tokenised.ends`). `trimmed`: tokens that end in white
    space; a tokenizer may leave this out of the span, whose end is then not the token's. Before a mark that
    belongs to the character nothing ends: a tokenizer that composes both (NFC) names the end before the mark.
    """
    assert item.rendered is not None
    assert item.ends is not None
    text, keys, places = item.rendered.text, [], []
    is_text = item.kind == TokenKind.TEXT
    for number, (start, stop) in enumerate(spans):
        inside = (is_text & (item.ends > start) & (item.ends <= stop)).nonzero()[0]
        for end, place in {int(item.ends[place]): int(place) for place in inside}.items():
            letter, last = trimmed.get(int(item.ids[place])), text[end - 1]
            whole = letter is None or (last == " " if letter == SPACE else last.isspace())
            if whole and not _composes(text[end - 1 : end + 1]):
                keys.append((number << 40) + end - start)
                places.append(place)
    order = np.argsort(np.array(keys, dtype=np.int64))
    return np.array(keys, dtype=np.int64)[order], np.array(places, dtype=np.int64)[order]


def _composes(two: str) -> bool:
    """Whether the second character is a mark on the first, or one character with it in NFC (as in Hangul)."""
    if len(two) < 2 or two[1] < "\u0300":  # the first combining mark
        return False
    return unicodedata.combining(two[1]) > 0 or len(unicodedata.normalize("NFC", two)) == 1


def ending_in_white_space(tokenizer: Any) -> dict[int, str]:
    """Id -> last letter of the vocabulary entries that end in white space."""
    return {index: token[-1] for token, index in tokenizer.get_vocab().items() if token.endswith(WHITE)}


def _write(found: _Aligned, tokenizer: Any, shown: TokenSet, folder: Path) -> None:
    from safetensors.torch import save_file

    lengths = [len(ids) for ids in found.ids]
    write_token_set(
        folder,
        documents=list(zip(shown.document_ids, shown.sources, strict=True)),
        ids=torch.from_numpy(np.concatenate(found.ids)),
        offsets=torch.tensor([0, *np.cumsum(lengths)]),
        kind=torch.from_numpy(np.concatenate(found.kinds)),
    )
    tokenizer.save_pretrained(folder / "tokenizer")
    save_file({"place": torch.from_numpy(np.concatenate(found.places))}, folder / PLACES)
