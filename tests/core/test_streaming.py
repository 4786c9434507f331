"""Document hashes and distinct document counts."""

from __future__ import annotations

import pytest
import torch

from crossdiff.core import streaming
from crossdiff.core.streaming import DocumentCounts, document_group, mix

MASK = (1 << 64) - 1


def splitmix64(number: int) -> int:
    """The published algorithm, on Python integers."""
    z = (number + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def test_mix_is_splitmix64_without_its_sign_bit() -> None:
    numbers = [0, 1, 17, 123_456_789, 2**62]
    expected = [splitmix64(n) & (2**63 - 1) for n in numbers]
    assert mix(torch.tensor(numbers)).tolist() == expected


def test_groups_are_even_for_alternating_documents_too() -> None:
    for documents in (torch.arange(20_000), 2 * torch.arange(20_000)):
        counts = torch.bincount(document_group(documents), minlength=20)
        assert counts.min() > 850
        assert counts.max() < 1150


def random_entries(n_latents: int, n_documents: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    document = torch.randint(0, n_documents, (5000,), generator=generator).sort().values
    return torch.randint(0, n_latents, (5000,), generator=generator), document


def expected_counts(latent: torch.Tensor, document: torch.Tensor, n_latents: int) -> list[int]:
    pairs = set(zip(latent.tolist(), document.tolist(), strict=True))
    return [sum(j == latent for latent, _ in pairs) for j in range(n_latents)]


def test_documents_are_counted_once_however_the_entries_are_cut_or_ordered() -> None:
    latent, document = random_entries(30, 50)
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(1))
    for rows in (torch.arange(5000), order):
        counts = DocumentCounts(30)
        for part in rows.split(77):
            counts.add(latent[part], document[part])
        assert counts.counts().tolist() == expected_counts(latent, document, 30)


@pytest.mark.parametrize("n_parts", [1, 4])
def test_beyond_the_memory_limit_corpus_order_stays_exact(
    monkeypatch: pytest.MonkeyPatch, n_parts: int
) -> None:
    monkeypatch.setattr(streaming, "PAIRS_IN_MEMORY", 200)
    latent, document = random_entries(30, 50)
    workers = []
    for share in torch.arange(5000).chunk(n_parts):
        counts = DocumentCounts(30)
        for part in share.split(77):
            counts.add(latent[part], document[part])
        assert sum(len(keys) for keys in counts.pairs) < 400
        workers.append(counts)
    for other in workers[1:]:
        workers[0].merge(other)
    assert workers[0].counts().tolist() == expected_counts(latent, document, 30)
