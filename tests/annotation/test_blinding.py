"""One shuffled job whose keys tell nothing, with controls that hang together by nothing."""

from __future__ import annotations

from crossdiff.annotation.blinding import SWAPPED, Candidate, blind_job
from tests.annotation.campaign import subjects


def candidates(n: int = 12) -> list[Candidate]:
    return [
        Candidate(pair, number, "exclusive_tuned", subject.explain, subject.score)
        for pair in ("pt_it", "pt_simpo")
        for number, subject in enumerate(subjects(n))
    ]


def test_pairs_are_mixed_and_keys_are_numbers_in_job_order() -> None:
    job = blind_job(candidates(), n_swapped=3, seed=0)
    assert [subject.key for subject, _ in job] == [f"{number:05d}" for number in range(27)]
    first_half = {candidate.pair for _, candidate in job[:13]}
    assert first_half == {"pt_it", "pt_simpo"}


def test_the_order_depends_on_the_seed_and_not_on_how_candidates_come() -> None:
    first = [(c.pair, c.latent) for _, c in blind_job(candidates(), n_swapped=3, seed=0)]
    assert first == [(c.pair, c.latent) for _, c in blind_job(candidates()[::-1], n_swapped=3, seed=0)]
    assert first != [(c.pair, c.latent) for _, c in blind_job(candidates(), n_swapped=3, seed=1)]


def test_swapped_controls_take_every_example_from_another_latent() -> None:
    job = blind_job(candidates(), n_swapped=5, seed=0)
    swapped = [subject for subject, candidate in job if candidate.role == SWAPPED]
    assert len(swapped) == 5
    for subject in swapped:
        donors = [example.document_id.split("-")[0] for example in subject.explain]
        assert len(donors) == 4
        assert len(set(donors)) >= 3


def test_too_few_latents_make_no_controls_and_none_make_no_job() -> None:
    assert [c.role for _, c in blind_job(candidates(1), n_swapped=5, seed=0)] == ["exclusive_tuned"] * 2
    assert blind_job([], n_swapped=5, seed=0) == []
