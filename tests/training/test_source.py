import pytest
import torch

from crossdiff.training.source import AddressedBatches, check_enough, check_finite
from tests.planted_source import PlantedSource


def test_addressed_batches_do_not_depend_on_where_a_run_starts(planted: PlantedSource) -> None:
    whole = [b.x for b in AddressedBatches(planted, seed=0, batch_size=8, start=0, stop=5)]
    rest = [b.x for b in AddressedBatches(planted, seed=0, batch_size=8, start=3, stop=5)]
    assert len(whole) == 5
    assert all(torch.equal(a, b) for a, b in zip(whole[3:], rest, strict=True))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_bad_activation_is_named_by_row_document_and_model(bad: float) -> None:
    source = PlantedSource(n_rows=500)
    source.x[321, 1, 4] = bad
    batch = source.read(torch.arange(300, 330))
    with pytest.raises(ValueError, match=r"token rows \[321\], documents \[3\], model\(s\) \[1\]"):
        check_finite(batch, source)


def test_huge_finite_activations_pass_although_their_sum_does_not_fit() -> None:
    source = PlantedSource(n_rows=500)
    source.x[:40] = 3e38
    batch = source.read(torch.arange(40))
    assert batch.stored.mean().isinf()
    check_finite(batch, source)


def test_too_few_tokens_for_a_batch_are_refused(planted: PlantedSource) -> None:
    with pytest.raises(ValueError, match="5,400 training tokens, fewer than one batch of 6,000"):
        check_enough(planted, batch_size=6000)


def test_a_source_without_held_out_tokens_is_refused() -> None:
    source = PlantedSource(n_rows=500)
    source.held_out = torch.zeros_like(source.held_out)
    with pytest.raises(ValueError, match="no token is held out"):
        check_enough(source, batch_size=10)
