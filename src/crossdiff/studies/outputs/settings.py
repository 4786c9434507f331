"""Settings of the output baseline: which documents, how many tokens per position, how many topics."""

from __future__ import annotations

from pydantic import Field

from crossdiff.data.settings import MaskSettings
from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Settings

RAISED = "raised"
"""Role of a topic in the files that annotators read: tokens that the tuned model raises together."""


class OutputsInputs(Settings):
    """What determines one pair's figures, beside the parents (tokens and, of the toy, the organism).

    n_documents     documents, drawn from all over the corpus
    top_k           tokens per position that count as raised (or lowered) most
    n_topics        topics of the raised tokens
    min_documents   a token belongs to topics from so many documents on that raise it among their top_k
    n_examples      positions per topic that an annotator reads, one per document
    window          tokens of text before such a position
    """

    base: ModelSettings
    tuned: ModelSettings
    fingerprints: tuple[str, str]
    """`models.pair.fingerprint` of both: what the models are, wherever they lie."""
    mask: MaskSettings = MaskSettings()
    n_documents: int = Field(default=2000, ge=2)
    top_k: int = Field(default=10, ge=1)
    n_topics: int = Field(default=60, ge=1)
    min_documents: int = Field(default=3, ge=1)
    n_examples: int = Field(default=20, ge=2)
    window: int = Field(default=32, ge=1)
    n_background: int = Field(default=300, ge=0)
    batch_tokens: int = Field(default=2048, ge=1)
    seed: int = 0
