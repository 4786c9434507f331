"""Drawing documents from several sources so that their token counts follow the weights."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from crossdiff.data.corpus import MixtureCorpus, Source
from crossdiff.data.records import records
from crossdiff.data.row_content import BadRecord, Record
from crossdiff.data.tokenise import Tokenised, tokenise

_READ_AHEAD = 64
_KEPT_EXAMPLES = 5


@dataclass
class SourceCounts:
    """Counts of what was taken from a source and what was set aside."""

    documents: int = 0
    tokens: int = 0
    duplicates: int = 0
    empty: int = 0
    bad: int = 0
    cut: int = 0
    tokens_cut: int = 0
    not_located: int = 0
    exhausted: bool = False
    examples_bad: list[str] = field(default_factory=list)


class _Reader:
    """One source, tokenised a little ahead, with the position of the next record."""

    def __init__(
        self, source: Source, tokenizer: Any, corpus: MixtureCorpus, organism: Path | None, start: int
    ):
        self.source = source
        self.counts = SourceCounts()
        self.position = start
        self._records = records(source, organism=organism, start=start)
        self._tokenizer = tokenizer
        self._context = corpus.context
        self._ready: deque[Tokenised | BadRecord] = deque()

    def next(self) -> Tokenised | BadRecord | None:
        """The next document, or None at the end of the source."""
        if not self._ready:
            self._ready.extend(self._more())
        if not self._ready:
            self.counts.exhausted = True
            return None
        self.position += 1
        return self._ready.popleft()

    def _more(self) -> Iterator[Tokenised | BadRecord]:
        batch = list(islice(self._records, _READ_AHEAD))
        good = iter(
            tokenise(self._tokenizer, [r for r in batch if isinstance(r, Record)], context=self._context)
        )
        for item in batch:
            yield item if isinstance(item, BadRecord) else next(good)


class Mixture:
    """An iterator of (source name, document), always from the source furthest behind its weight.

    `start`: the state of a killed run (positions and counts per source, digests of documents).
    """

    def __init__(
        self,
        corpus: MixtureCorpus,
        tokenizer: Any,
        *,
        organism: Path | None,
        start: dict[str, Any] | None = None,
    ) -> None:
        self.corpus = corpus
        state = start or {"positions": [0] * len(corpus.sources), "counts": [], "seen": []}
        self._readers = [
            _Reader(source, tokenizer, corpus, organism, position)
            for source, position in zip(corpus.sources, state["positions"], strict=True)
        ]
        for reader, counts in zip(self._readers, state["counts"], strict=False):
            reader.counts = SourceCounts(**counts)
        self._seen: set[bytes] = {bytes.fromhex(text) for text in state["seen"]}

    def __iter__(self) -> Iterator[tuple[str, Tokenised]]:
        while (reader := self._furthest_behind()) is not None:
            item = reader.next()
            if isinstance(item, BadRecord):
                self._set_aside(reader, item)
            elif item is not None and self._is_new(reader, item):
                counts = reader.counts
                counts.documents += 1
                counts.tokens += len(item.ids)
                counts.cut += item.n_cut > 0
                counts.tokens_cut += item.n_cut
                counts.not_located += item.n_not_located
                yield reader.source.name, item

    @property
    def n_tokens(self) -> int:
        """Tokens taken so far."""
        return sum(reader.counts.tokens for reader in self._readers)

    def counts(self) -> dict[str, dict[str, Any]]:
        """Source -> its `SourceCounts`."""
        return {reader.source.name: asdict(reader.counts) for reader in self._readers}

    def state(self) -> dict[str, Any]:
        """Positions and counts, to continue a killed run (the caller keeps `seen`)."""
        return {
            "positions": [reader.position for reader in self._readers],
            "counts": [asdict(reader.counts) for reader in self._readers],
        }

    def _furthest_behind(self) -> _Reader | None:
        if self.corpus.n_tokens is not None and self.n_tokens >= self.corpus.n_tokens:
            return None
        alive = [reader for reader in self._readers if not reader.counts.exhausted]
        return min(alive, key=lambda reader: reader.counts.tokens / reader.source.weight, default=None)

    def _set_aside(self, reader: _Reader, bad: BadRecord) -> None:
        if not self.corpus.skip_bad:
            raise bad
        reader.counts.bad += 1
        if len(reader.counts.examples_bad) < _KEPT_EXAMPLES:
            reader.counts.examples_bad.append(str(bad))

    def _is_new(self, reader: _Reader, item: Tokenised) -> bool:
        if not item.has_text:  # before `_seen`: a continued run has digests of kept documents only
            reader.counts.empty += 1
            return False
        digest = item.record.digest()
        if digest in self._seen:
            reader.counts.duplicates += 1
            return False
        self._seen.add(digest)
        return True
