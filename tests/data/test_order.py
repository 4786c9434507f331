"""Epoch order: blocks of whole documents, permuted, mixed within windows."""

from __future__ import annotations

import pytest
import torch

from crossdiff.data.order import BLOCK_ROWS, CorpusOrder, EpochOrder, Segment, document_blocks


def test_blocks_end_at_document_boundaries_and_hold_at_least_the_block_size() -> None:
    offsets = torch.tensor([0, 300, 500, 700, 1500, 1510])
    assert BLOCK_ROWS == 512
    assert document_blocks(offsets).tolist() == [0, 700, 1500, 1510]


def test_a_document_longer_than_a_block_is_a_block() -> None:
    assert document_blocks(torch.tensor([0, 4000, 4001])).tolist() == [0, 4000, 4001]


def order(window_blocks: int, *, seed: int = 0) -> EpochOrder:
    kept = torch.arange(1000) % 3 != 0
    return EpochOrder(kept, torch.arange(0, 1001, 100), seed=seed, window_blocks=window_blocks)


def test_segments_follow_each_other_through_windows_and_epochs() -> None:
    found = order(4).segments(660, 680)
    assert sum(part.stop - part.start for part in found) == 20
    assert [(part.epoch, part.window) for part in found] == [(0, 2), (1, 0)]
    assert found[1] == Segment(1, 0, 0, 14)


def test_windows_of_an_epoch_hold_every_block_once() -> None:
    made = order(3)
    spans = [span for window in range(made.n_windows) for span in made.spans(7, window)]
    assert sorted(spans) == [(start, start + 100) for start in range(0, 1000, 100)]
    assert spans != sorted(spans)
    for window in range(made.n_windows):
        assert made.spans(7, window) == sorted(made.spans(7, window))


def test_another_seed_or_epoch_is_another_order() -> None:
    assert [order(3).spans(0, n) for n in range(4)] != [order(3).spans(1, n) for n in range(4)]
    assert not torch.equal(order(3).shuffle(0, 0), order(3, seed=1).shuffle(0, 0))


def test_a_mask_that_keeps_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="no training row is left after the mask"):
        EpochOrder(torch.zeros(10, dtype=torch.bool), torch.tensor([0, 10]), seed=0, window_blocks=1)


def test_a_pass_in_corpus_order_leaves_out_windows_that_keep_nothing() -> None:
    kept = torch.zeros(1000, dtype=torch.bool)
    kept[[150, 160, 820]] = True
    made = CorpusOrder(kept, torch.arange(0, 1001, 100), window_blocks=1)
    assert [part.window for part in made.segments(0, 3)] == [1, 8]
    assert made.next_window(0, 1) == (0, 8)
    assert made.next_window(0, 8) is None
