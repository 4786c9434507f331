"""Windows, near-duplicates and the choice of examples."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.core.documented_latents import Entry, ExampleReservoirs, Peaks
from crossdiff.data.examples import (
    DocumentsSettings,
    Subset,
    document_hashes,
    for_scoring,
    pick_examples,
    window_around,
)
from crossdiff.data.tokens import TokenKind, TokenSet, write_token_set

LENGTH = 40


@pytest.fixture
def token_set(tmp_path: Path) -> TokenSet:
    """Thirty documents of random tokens; documents 10 to 19 repeat document 0 with one token changed."""
    ids = torch.randint(0, 500, (30, LENGTH), generator=torch.Generator().manual_seed(0))
    ids[10:20] = ids[0]
    ids[10:20, 39] = torch.arange(10)
    return write_token_set(
        tmp_path,
        documents=[(f"d{n}", "test") for n in range(30)],
        ids=ids.flatten(),
        offsets=torch.arange(31) * LENGTH,
        kind=torch.full((30 * LENGTH,), int(TokenKind.TEXT), dtype=torch.uint8),
    )


def test_a_window_stays_inside_its_document_and_holds_the_peak(token_set: TokenSet) -> None:
    for place in (0, 3, 20, 39):
        window = window_around(Entry(2, 2 * LENGTH + place, 1.0), token_set, 16)
        assert len(window.rows) == 16
        assert 2 * LENGTH <= window.rows.start < window.rows.stop <= 3 * LENGTH
        assert window.rows.start + window.peak == 2 * LENGTH + place
        assert window.start + window.peak == place
    assert len(window_around(Entry(2, 2 * LENGTH, 1.0), token_set, 99).rows) == LENGTH


def filled(settings: DocumentsSettings, documents: torch.Tensor) -> dict[Subset, ExampleReservoirs]:
    """Latent 0 peaks at token 30 of every document, the higher the later the document."""
    reservoirs = settings.empty_reservoirs(1)
    hashes = document_hashes([f"d{int(n)}" for n in documents], salt="examples")
    scoring = for_scoring(hashes, settings.score_share)
    peaks = Peaks(documents, 1.0 + documents[:, None].float(), LENGTH * documents[:, None] + 30)
    reservoirs["explain"].add(peaks, mine=~scoring, hashes=hashes)
    reservoirs["score"].add(peaks, mine=scoring, hashes=hashes)
    return reservoirs


def test_near_duplicates_are_dropped_and_counted(token_set: TokenSet) -> None:
    settings = DocumentsSettings(n_examples=20, n_score_examples=0, score_share=0.0, window=32)
    copies = torch.tensor([0, *range(10, 20)])
    picked, n_refused = pick_examples(filled(settings, copies), 0, token_set=token_set, settings=settings)
    assert [example.window.document for example in picked] == [19]
    assert n_refused == 20  # ten by the top list, ten by the quantile list


def test_half_are_top_peaks_and_half_are_spread_over_quantiles(token_set: TokenSet) -> None:
    settings = DocumentsSettings(n_examples=8, n_score_examples=0, score_share=0.0, window=16, n_quantiles=4)
    documents = torch.tensor([*range(10), *range(20, 30)])
    picked, _ = pick_examples(filled(settings, documents), 0, token_set=token_set, settings=settings)
    tops = [e.window.document for e in picked if e.source == "top"]
    assert tops == [29, 28, 27, 26]
    spread = {e.quantile: e.window.document for e in picked if e.source == "quantile"}
    assert sorted(spread) == [0, 1, 2, 3]
    order = documents.tolist()
    assert all(order.index(document) * 4 // 20 == quantile for quantile, document in spread.items())


def test_no_document_serves_both_subsets(token_set: TokenSet) -> None:
    settings = DocumentsSettings(n_examples=10, n_score_examples=10, window=16)
    documents = torch.tensor([*range(10), *range(20, 30)])
    picked, _ = pick_examples(filled(settings, documents), 0, token_set=token_set, settings=settings)
    used = {
        subset: {e.window.document for e in picked if e.subset == subset} for subset in ("explain", "score")
    }
    assert used["explain"]
    assert used["score"]
    assert not used["explain"] & used["score"]
