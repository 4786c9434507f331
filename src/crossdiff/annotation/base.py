"""The annotator protocol, and the base class for annotators of your own (docs/add_an_annotator.md)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from typing import Protocol

from crossdiff.annotation.results import Annotation
from crossdiff.annotation.subjects import CategoryLike, Document, Subject
from crossdiff.settings import Settings


class Annotator(Protocol):
    """Turns blind subjects into annotations, one each, in order."""

    def annotate(self, subjects: Sequence[Subject]) -> Iterable[Annotation]:
        """Every subject ends in a typed state."""
        ...


class OwnAnnotator(Settings):
    """Settings of an annotator that is none of ours; its answers are kept under these settings' key."""

    @abstractmethod
    def annotator(
        self, scheme: Sequence[CategoryLike], background: Sequence[Document], *, seed: int
    ) -> Annotator:
        """Built once per job: the frozen taxonomy's categories, random documents to compare with, a seed."""
