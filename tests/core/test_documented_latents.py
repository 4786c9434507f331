"""Peaks per document and bounded samples of documents."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core.documented_latents import Peaks, Reservoir, document_peaks


def stream(size: int) -> list[Peaks]:
    generator = torch.Generator().manual_seed(0)
    code = torch.rand(100, 3, generator=generator) * (torch.rand(100, 3, generator=generator) > 0.6)
    document = torch.repeat_interleave(torch.tensor([0, 1, 4, 5]), torch.tensor([10, 50, 5, 35]))
    row = torch.arange(1000, 1100)
    parts = zip(code.split(size), document.split(size), row.split(size), strict=True)
    return list(document_peaks(parts))


@pytest.mark.parametrize("size", [1, 7, 33, 100])
def test_peaks_do_not_depend_on_where_batches_are_cut(size: int) -> None:
    whole, cut = stream(100), stream(size)
    for name in ("document", "peak", "row"):
        joined = [torch.cat([getattr(p, name) for p in parts]) for parts in (whole, cut)]
        assert torch.equal(*joined), name
    assert torch.cat([p.document for p in cut]).tolist() == [0, 1, 4, 5]


def test_a_peak_is_the_largest_code_of_its_document_by_hand() -> None:
    code = torch.tensor([[1.0, 0.0], [3.0, 0.0], [2.0, 5.0]])
    (peaks,) = [
        p for p in document_peaks([(code, torch.zeros(3, dtype=torch.int64), torch.arange(3))]) if len(p.peak)
    ]
    assert peaks.peak.tolist() == [[3.0, 5.0]]
    assert peaks.row.tolist() == [[1, 2]]


def test_a_reservoir_keeps_the_highest_and_never_an_inactive_document() -> None:
    reservoir = Reservoir(1, size=2)
    for document, peak in enumerate([1.0, 5.0, 0.0, 3.0]):
        peaks = Peaks(torch.tensor([document]), torch.tensor([[peak]]), torch.tensor([[document * 10]]))
        reservoir.add(peaks, peaks.peak.double())
    assert [(e.document, e.row, e.peak) for e in reservoir.entries(0)] == [(1, 10, 5.0), (3, 30, 3.0)]
    empty = Reservoir(1, size=2)
    empty.add(
        Peaks(torch.tensor([0]), torch.tensor([[0.0]]), torch.tensor([[0]])), torch.tensor([[9.0]]).double()
    )
    assert empty.entries(0) == []


def test_reservoirs_of_parts_merge_to_that_of_the_whole_in_any_order() -> None:
    """Priorities of few values, so that the earlier document has to win many ties."""
    generator = torch.Generator().manual_seed(0)
    peak = torch.randint(0, 4, (40, 6), generator=generator).float()
    peaks = Peaks(torch.arange(40), peak, torch.arange(40)[:, None].expand(40, 6))

    def filled(documents: range) -> Reservoir:
        found, which = Reservoir(6, size=5), torch.zeros(40, dtype=torch.bool)
        which[documents.start : documents.stop] = True
        found.add(peaks.of(which), peak[which].double())
        return found

    whole, last, first, middle = map(filled, (range(40), range(31, 40), range(12), range(12, 31)))
    last.merge(first)
    last.merge(middle)
    assert [last.entries(j) for j in range(6)] == [whole.entries(j) for j in range(6)]
