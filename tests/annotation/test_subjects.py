"""Tables become subjects in rank order; an example keeps its window as it was."""

from __future__ import annotations

from pathlib import Path

from crossdiff.annotation.subjects import (
    SWAPPED,
    Candidate,
    background_documents,
    blind_job,
    examples_by_latent,
)
from crossdiff.io.tables import read_table
from tests.annotation.campaign import subjects
from tests.planted_documents import write_documents


def test_examples_and_background_are_read_from_the_documents_artifact(tmp_path: Path) -> None:
    folder = write_documents(tmp_path / "d", "pt_it", ["translation", "mathematics"])
    found = examples_by_latent(
        read_table(folder / "examples.parquet", kind="examples").sample(frac=1, random_state=0)
    )
    assert set(found) == {0, 1}
    assert [example.document_id for example in found[1]["explain"]] == [f"explain-1-{n}" for n in range(6)]
    assert all(example.codes[example.peak] == 2 for example in found[0]["score"])
    background = background_documents(read_table(folder / "background.parquet", kind="background"))
    assert len(background) == 120


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
