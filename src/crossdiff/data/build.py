"""Building a token set from a corpus in parts, which survive a killed run."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from crossdiff.data.corpus import FilesSource, MixtureCorpus, left_out
from crossdiff.data.mixture import Mixture
from crossdiff.data.tokenise import Tokenised
from crossdiff.data.tokens import TokenKind, TokenSet, write_token_set
from crossdiff.io.progress import bar
from crossdiff.io.tables import read_json, write_json
from crossdiff.models.chat import TEMPLATE_DATE

PART_TOKENS = 4_000_000
"""Tokens per part: the most that a killed run loses."""


@dataclass
class _Part:
    """Documents since the last saved part."""

    ids: list[np.ndarray] = field(default_factory=list)
    kinds: list[np.ndarray] = field(default_factory=list)
    documents: list[tuple[str, str]] = field(default_factory=list)
    digests: list[str] = field(default_factory=list)
    n_tokens: int = 0

    def add(self, source: str, item: Tokenised) -> None:
        self.ids.append(item.ids)
        self.kinds.append(item.kind)
        self.documents.append((item.record.id, source))
        self.digests.append(item.record.digest().hex())
        self.n_tokens += len(item.ids)

    def save(self, folder: Path, state: dict[str, Any]) -> None:
        """Write the arrays, then the state that counts them."""
        number = state["n_parts"]
        np.savez(
            folder / f"part_{number:05d}.npz",
            ids=_joined(self.ids, np.int32),
            kind=_joined(self.kinds, np.uint8),
            lengths=np.array([len(ids) for ids in self.ids], dtype=np.int64),
        )
        write_json({"documents": self.documents, "digests": self.digests}, folder / f"part_{number:05d}.json")
        write_json({**state, "n_parts": number + 1}, folder / "state.json")


def build_token_set(
    corpus: MixtureCorpus,
    tokenizer: Any,
    folder: Path,
    *,
    organism: Path | None,
    progress: bool = True,
    identity: str = "",
) -> TokenSet:
    """Read, tokenise and save a corpus, continuing the draft of a killed run with this `identity`."""
    if (folder / "tokens.json").is_file() and read_json(folder / "tokens.json").get("identity") == identity:
        return TokenSet.open(folder)
    work = folder / "parts"
    work.mkdir(parents=True, exist_ok=True)
    _read_corpus(corpus, tokenizer, work, organism=organism, progress=progress, identity=identity)
    state = read_json(work / "state.json")
    _refuse_empty(corpus, state)
    ids, kind, offsets, documents = _merged(work, state["n_parts"])
    tokenizer.save_pretrained(folder / "tokenizer")
    tokens = write_token_set(
        folder,
        documents=unique_documents(documents),
        ids=torch.from_numpy(ids),
        offsets=torch.from_numpy(offsets),
        kind=torch.from_numpy(kind),
        details={"identity": identity, **_details(corpus, tokenizer, state, kind, len(documents))},
    )
    for path in [*work.iterdir()]:
        path.unlink()
    work.rmdir()
    return tokens


def _read_corpus(
    corpus: MixtureCorpus, tokenizer: Any, work: Path, *, organism: Path | None, progress: bool, identity: str
) -> None:
    state = _saved_state(work, identity)
    mixture = Mixture(corpus, tokenizer, organism=organism, start=state)
    n_parts = state["n_parts"] if state else 0
    part = _Part()
    with bar(total=corpus.n_tokens, description="tokens", unit="tok", enabled=progress) as shown:
        shown.update(mixture.n_tokens)
        for source, item in mixture:
            part.add(source, item)
            shown.update(len(item.ids))
            if part.n_tokens >= PART_TOKENS:
                part.save(work, {**mixture.state(), "n_parts": n_parts, "identity": identity})
                part, n_parts = _Part(), n_parts + 1
    part.save(work, {**mixture.state(), "n_parts": n_parts, "identity": identity})


def _saved_state(work: Path, identity: str) -> dict[str, Any] | None:
    path = work / "state.json"
    if not path.is_file():
        return None
    state = read_json(path)
    if state["identity"] != identity:
        path.unlink()
        return None
    parts = [read_json(work / f"part_{number:05d}.json") for number in range(state["n_parts"])]
    return {**state, "seen": [digest for part in parts for digest in part["digests"]]}


def _merged(work: Path, n_parts: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[tuple[str, str]]]:
    arrays = [np.load(work / f"part_{number:05d}.npz") for number in range(n_parts)]
    lengths = _joined([part["lengths"] for part in arrays], np.int64)
    documents = [
        (name, source)
        for number in range(n_parts)
        for name, source in read_json(work / f"part_{number:05d}.json")["documents"]
    ]
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), lengths.cumsum()])
    ids = _joined([part["ids"] for part in arrays], np.int32)
    return ids, _joined([part["kind"] for part in arrays], np.uint8), offsets, documents


def unique_documents(documents: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Make ids unique: the second document of the same id gets `~2`, and so on."""
    seen: Counter[str] = Counter()
    taken = {name for name, _ in documents}
    return [(_unused(name, seen, taken), source) for name, source in documents]


def _unused(name: str, seen: Counter[str], taken: set[str]) -> str:
    seen[name] += 1
    if seen[name] == 1:
        return name
    while (unused := f"{name}~{seen[name]}") in taken:
        seen[name] += 1
    return unused


def _details(
    corpus: MixtureCorpus, tokenizer: Any, state: dict[str, Any], kind: np.ndarray, n_documents: int
) -> dict[str, Any]:
    counts = {source.name: count for source, count in zip(corpus.sources, state["counts"], strict=True)}
    per_kind = np.bincount(kind, minlength=len(TokenKind))
    has_bos = tokenizer.bos_token_id is not None
    return {
        "n_documents": n_documents,
        "n_tokens": len(kind),
        "tokens_per_kind": {k.name.lower(): int(per_kind[k]) for k in TokenKind},
        "sources": counts,
        "context": corpus.context,
        "bos": tokenizer.bos_token if has_bos else None,
        "has_template": tokenizer.chat_template is not None,
        "template_date": str(TEMPLATE_DATE) if "strftime_now" in str(tokenizer.chat_template) else None,
        "notices": [*_notices(counts, has_bos=has_bos), *_missing(corpus, len(kind))],
    }


def _notices(counts: dict[str, dict[str, Any]], *, has_bos: bool) -> Iterator[str]:
    if not has_bos:
        yield (
            "the tokenizer has no BOS token: the first token of a document takes its place in attention; "
            "mask.skip_first=1 drops it"
        )
    for name, count in counts.items():
        if count["bad"]:
            yield f"{name}: {count['bad']:,} bad documents skipped, the first: {count['examples_bad'][0]}"
        if count["not_located"]:
            yield (
                f"{name}: {count['not_located']:,} contents of messages cannot be distinguished from the "
                "template's text and count as template"
            )
        if count["tokens_cut"] > count["tokens"]:
            cut, left = count["tokens_cut"], count["tokens"]
            yield f"{name}: the context cut off more tokens ({cut:,}) than it left ({left:,})"
        elif 10 * count["tokens_cut"] > count["tokens"]:
            yield f"{name}: the context cut off {count['tokens_cut']:,} tokens and left {count['tokens']:,}"


def _missing(corpus: MixtureCorpus, n_tokens: int) -> Iterator[str]:
    """Notices on tokens that the corpus lacks, and on files that are not read."""
    if corpus.n_tokens is not None and n_tokens < corpus.n_tokens:
        yield f"the corpus ends after {n_tokens:,} of corpus.n_tokens={corpus.n_tokens:,} tokens"
    for source in corpus.sources:
        others = left_out(source.paths) if isinstance(source, FilesSource) else []
        if others:
            yield f"{source.name}: {len(others):,} files of the folders are not read, such as {others[0]}"


def _refuse_empty(corpus: MixtureCorpus, state: dict[str, Any]) -> None:
    if sum(count["tokens"] for count in state["counts"]):
        return
    aside = {
        source.name: {key: count[key] for key in ("bad", "empty", "duplicates", "not_located")}
        for source, count in zip(corpus.sources, state["counts"], strict=True)
    }
    raise ValueError(
        f"corpus {corpus.name} has no usable token (set aside: {json.dumps(aside)}); "
        "give at least one document with text"
    )


def _joined(arrays: list[np.ndarray], dtype: Any) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.zeros(0, dtype=dtype)
