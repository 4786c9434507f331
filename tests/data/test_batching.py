"""Batches: every document once, within the limits, with little padding."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from crossdiff.data.batching import batch_arrays, form_batches

BATCHING: list[Literal["pack", "bucket"]] = ["pack", "bucket"]


@pytest.mark.parametrize("batching", BATCHING)
@settings(max_examples=50, deadline=None)
@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=60), batch_tokens=st.integers(1, 300))
def test_every_document_lies_in_one_row_within_the_limits(
    batching: Literal["pack", "bucket"], lengths: list[int], batch_tokens: int
) -> None:
    batches = form_batches(lengths, batching=batching, batch_tokens=batch_tokens, context=64)
    documents = [d for batch in batches for row in batch.rows for d in row]
    assert sorted(documents) == list(range(len(lengths)))
    for batch in batches:
        assert batch.width <= 64
        assert len(batch.rows) == 1 or len(batch.rows) * batch.width <= batch_tokens
        assert batch.n_tokens == sum(lengths[d] for row in batch.rows for d in row)
        for half in batch.halves(lengths):
            assert half.n_tokens <= batch.n_tokens


@pytest.mark.parametrize("batching", BATCHING)
@pytest.mark.parametrize("n_documents", [130, 500, 2000])
@pytest.mark.parametrize("batch_tokens", [8192, 65_536])
def test_padding_is_at_most_five_percent_on_mixed_chat_lengths(
    batching: Literal["pack", "bucket"], n_documents: int, batch_tokens: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = torch.empty(n_documents).log_normal_(mean=5.0, std=1.0, generator=generator)
    lengths = drawn.long().clamp(8, 1024).tolist()
    batches = form_batches(lengths, batching=batching, batch_tokens=batch_tokens, context=1024)
    padding = sum(batch.n_padding for batch in batches)
    assert padding / (padding + sum(lengths)) <= 0.05


def test_positions_restart_with_every_document_and_rows_name_their_place() -> None:
    ids = torch.arange(100, 120)
    starts, lengths = torch.tensor([0, 5, 15]), torch.tensor([3, 4, 2])
    (batch,) = form_batches(lengths.tolist(), batching="pack", batch_tokens=100, context=8)
    arrays = batch_arrays(batch, ids, starts, lengths)
    assert batch.rows == ((1, 0), (2,))
    assert arrays.tokens.tolist() == [[105, 106, 107, 108, 100, 101, 102], [115, 116, 0, 0, 0, 0, 0]]
    assert arrays.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2], [0, 1, 0, 1, 2, 3, 0]]
    assert arrays.rows.tolist() == [[3, 4, 5, 6, 0, 1, 2], [7, 8, -1, -1, -1, -1, -1]]


def test_a_batch_of_one_document_cannot_be_halved() -> None:
    (batch,) = form_batches([9], batching="pack", batch_tokens=4, context=9)
    assert len(batch.halves([9])) == 1
