import math

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.training.evaluation import (
    HeldOutSample,
    evaluate,
    held_out_batches,
    sampled_rows,
)
from crossdiff.training.run import initial_crosscoder
from crossdiff.training.settings import TrainingSettings
from tests.planted_source import PlantedSource


def untrained(source: PlantedSource) -> Crosscoder:
    return initial_crosscoder(
        source,
        DictionarySettings(n_latents=64),
        sparsity=BatchTopK(k=4),
        training=TrainingSettings(n_steps=1, batch_size=100),
        seed=0,
    )


def test_held_out_figures_of_a_crosscoder_agree_with_dense_encoding(planted: PlantedSource) -> None:
    crosscoder = untrained(planted)
    batches = list(held_out_batches(planted, batch_size=100, device=torch.device("cpu")))
    found = evaluate(crosscoder, batches, threshold=2.0, k=4)
    x = planted.x[planted.rows("validation")]
    code = crosscoder.encode(x, threshold=2.0)
    assert found.n_tokens == len(x)
    assert found.l0 == pytest.approx(float((code > 0).sum(1).double().mean()))
    assert found.never_fired == pytest.approx(float((~(code > 0).any(0)).double().mean()))
    assert found.l0_batch == pytest.approx(4)
    error = (x - crosscoder.decode(code)).square().sum((0, 2)) / (x - x.mean(0)).square().sum((0, 2))
    assert found.fve == pytest.approx((1 - error).tolist(), rel=1e-4)
    assert found.fve_without_first != pytest.approx(found.fve, rel=1e-9)
    assert found.fve_without_first == pytest.approx(found.fve, abs=0.05)  # no sinks are planted here


def test_without_a_threshold_its_figures_are_missing_not_zero(planted: PlantedSource) -> None:
    crosscoder = untrained(planted)
    batches = planted.batches_of(planted.rows("validation")[:200], batch_size=100)
    found = evaluate(crosscoder, batches, threshold=math.nan, k=4)
    assert found.n_tokens == 200
    assert all(math.isnan(value) for value in (found.l0, found.never_fired, *found.fve))
    assert not math.isnan(found.fve_batch[0])


def test_a_collapsed_crosscoder_keeps_nothing_and_reconstructs_its_bias(planted: PlantedSource) -> None:
    crosscoder = untrained(planted)
    with torch.no_grad():
        crosscoder.encoder_bias.fill_(-1e6)
        crosscoder.decoder_bias.zero_()
    batches = planted.batches_of(planted.rows("validation")[:200], batch_size=100)
    found = evaluate(crosscoder, batches, threshold=math.nan, k=4)
    assert found.l0_batch == 0
    assert found.fve_batch == pytest.approx([0.0, 0.0], abs=0.05)  # the bias is the training rows' mean


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
    first, again = (torch.cat([batch.x for batch in sample.batches(CPU)]) for _ in range(2))
    assert (large.n_rows_read, large.n_batches_read) == (512, 4)
    assert torch.equal(first, again)
    assert torch.equal(first, large.x[sampled_rows(large, n_tokens=512, seed=0)])


def test_a_first_pass_that_is_broken_off_is_made_again(large: Counting) -> None:
    sample = HeldOutSample(large, n_tokens=512, batch_size=128, seed=0)
    next(sample.batches(CPU))
    assert sum(len(batch.row) for batch in sample.batches(CPU)) == 512


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
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.document, expected.document)


def test_one_long_document_is_cut(planted: PlantedSource) -> None:
    assert len(sampled_rows(planted, n_tokens=7, seed=3)) == 7
