"""Settings of the annotators: one class per option of the group `annotator`."""

from __future__ import annotations

from crossdiff.settings import Settings


class Lexical(Settings):
    """Keywords around the activity, and the category whose cue words the documents hold. Needs nothing.

    `decay` per token of distance; `floor` is the weight of a word far from any activity when documents
    vote for a category; a keyword or category needs `min_documents` documents; a category needs
    `min_share` of the votes, beyond what background documents give it.
    """

    decay: float = 0.8
    floor: float = 0.3
    min_documents: int = 3
    min_share: float = 0.4
    definition_weight: float = 0.5
    n_keywords: int = 8
    n_resamples: int = 25


AnnotatorSettings = Lexical
