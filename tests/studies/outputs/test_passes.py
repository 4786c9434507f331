"""Positions of documents, also of empty ones."""

import torch

from crossdiff.data.tokens import TokenSet
from crossdiff.studies.outputs.passes import Corpus


def test_an_empty_document_has_no_position_and_takes_none_of_others() -> None:
    """Documents of 0, 3, 0 and 1 tokens: only the second has tokens that another one follows."""
    offsets = torch.tensor([0, 0, 3, 3, 4])
    kept = torch.ones(4, dtype=torch.bool)
    token_set = TokenSet(torch.arange(4), offsets, torch.zeros(4), list("abcd"), ["own"] * 4, "hash")
    corpus = Corpus(token_set, kept, torch.arange(4), n_vocabulary=9)
    assert [corpus.positions(document).tolist() for document in range(4)] == [[], [0, 1], [], []]
