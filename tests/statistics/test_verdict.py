"""The verdict claims no more than the corrected p-values."""

from __future__ import annotations

from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.verdict import verdict
from crossdiff.taxonomy.scheme import PaperTaxonomy


def test_the_published_counts_change_nothing_beyond_chance() -> None:
    reference = ["translation"] * 8 + ["mathematics"] * 32 + ["other"] * 72
    treatment = ["translation"] * 8 + ["mathematics"] * 21 + ["other"] * 60
    assert verdict(category_deltas(reference, treatment)).startswith("no class and no category changes")


def test_a_large_change_is_named_with_its_counts() -> None:
    reference = ["translation"] * 5 + ["mathematics"] * 95
    treatment = ["translation"] * 60 + ["mathematics"] * 40
    sentence = verdict(category_deltas(reference, treatment))
    assert "linguistic_multilingual +1100.0 % (60 vs 5)" in sentence
    assert "categories that change beyond chance" in sentence


def test_empty_sides_are_named() -> None:
    assert "reference pair has no labelled" in verdict(category_deltas([], ["translation"]))
    assert "reference and the treatment" in verdict(category_deltas([], []))


def test_labels_outside_every_category_are_no_comparison() -> None:
    taxonomy = PaperTaxonomy().load()
    sentence = verdict(category_deltas(["other"] * 5, ["uninterpretable"] * 4, taxonomy=taxonomy))
    assert sentence.startswith("no comparison is possible: no labelled exclusive latent of either pair is in")
    assert "nan" not in sentence
