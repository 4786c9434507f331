"""A validation reads what it looks at, once in a run."""

import pytest
import torch

from crossdiff.training.held_out import HeldOutSample, held_out_batches, sampled_rows
from tests.planted_source import PlantedSource

CPU = torch.device("cpu")


class Counting(PlantedSource):
    """Knows how many rows and batches were read."""

    n_rows_read = n_batches_read = 0

    def read(self, rows: torch.Tensor):
        self.n_rows_read += len(rows)
        self.n_batches_read += 1
        return super().read(rows)


@pytest.fixture
def large() -> Counting:
    """4,000 held-out rows in 40 documents."""
    return Counting(n_rows=40_000)


def test_validations_of_a_large_split_read_the_wanted_tokens_once(large: Counting) -> None:
    sample = HeldOutSample(large, n_tokens=512, batch_size=128, seed=0)
    first, again = (torch.cat(list(sample.batches(CPU))) for _ in range(2))
    assert (large.n_rows_read, large.n_batches_read) == (512, 4)
    assert torch.equal(first, again)
    assert torch.equal(first, large.x[sampled_rows(large, n_tokens=512, seed=0)])


def test_a_first_pass_that_is_broken_off_is_made_again(large: Counting) -> None:
    sample = HeldOutSample(large, n_tokens=512, batch_size=128, seed=0)
    next(sample.batches(CPU))
    assert len(torch.cat(list(sample.batches(CPU)))) == 512


def test_the_sample_is_documents_from_all_over_the_corpus_that_the_seed_decides(large: Counting) -> None:
    rows = sampled_rows(large, n_tokens=1030, seed=0)
    assert torch.equal(rows, rows.unique())
    assert bool(large.held_out[rows].all())
    documents, counts = large.document[rows].unique(return_counts=True)
    assert sorted(counts.tolist()) == [30] + 10 * [100]
    assert int(documents.min()) < 100
    assert int(documents.max()) > 300
    assert torch.equal(rows, sampled_rows(large, n_tokens=1030, seed=0))
    assert not torch.equal(rows, sampled_rows(large, n_tokens=1030, seed=1))


@pytest.mark.parametrize("n_tokens", [600, 10_000])
def test_a_split_that_is_no_larger_is_read_whole_in_corpus_order(
    n_tokens: int, planted: PlantedSource
) -> None:
    sample = HeldOutSample(planted, n_tokens=n_tokens, batch_size=256, seed=0)
    for found, expected in zip(
        sample.batches(CPU), held_out_batches(planted, batch_size=256, device=CPU), strict=True
    ):
        assert torch.equal(found, expected)


def test_one_long_document_is_cut(planted: PlantedSource) -> None:
    assert len(sampled_rows(planted, n_tokens=7, seed=3)) == 7
