from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from crossdiff.report import caveats, sentences
from crossdiff.report.caveats import set_aside
from crossdiff.report.pair_section import pair_tiles
from crossdiff.report.sources import Sources


def test_refusals_show_both_ends_with_their_counts(sources: Sources) -> None:
    assert sources.comparison is not None
    texts = {"low_text": "-25.0 % (3 vs 4)", "high_text": "new (6 vs 0)"}
    bounds = [{"level": "class", "name": "safety_moderation", "low": -0.25, "high": None, **texts}]
    facts = {**sources.comparison.facts, "refusal_bounds": bounds}
    block = caveats.refusals(replace(sources.comparison, facts=facts))
    assert block is not None
    (row,) = block["table"].rows
    assert [cell.text for cell in row.cells] == ["Safety moderation", *texts.values()]
    assert row.kind == "class"


def test_without_refusals_there_is_nothing_to_bound(sources: Sources) -> None:
    assert sources.comparison is not None
    assert caveats.refusals(sources.comparison) is None


def test_what_was_not_measured_is_named_and_leaves_when_it_was(sources: Sources) -> None:
    assert sources.comparison is not None
    block = caveats.not_measured(sources.comparison)
    assert block is not None
    assert block["text"].startswith("No null: how much two seeds")
    assert "no behaviour rates" in block["text"]
    whole = {"nulls": [1], "matched": {"pairs": []}, "multiverse": {"names": []}}
    measured = replace(sources.comparison, facts=whole, rates={"behaviours": [1]})
    assert caveats.not_measured(measured) is None


def test_a_training_too_short_stands_before_everything_else(sources: Sources) -> None:
    short = {"signature": {"verdict": "trained_too_short", "sentence": "Trained too short."}}
    pairs = {**sources.pairs, "pt_simpo": replace(sources.pairs["pt_simpo"], diagnostics=short)}
    assert caveats.trained_too_short(sources) == []
    assert sentences.undone_by(replace(sources, pairs=pairs))[0] == "pt_simpo: Trained too short."


def test_two_families_by_norms_are_told_first_and_do_not_pass_latent_scaling(sources: Sources) -> None:
    by_norm = replace(
        sources.pairs["pt_simpo"],
        diagnostics={"two_families": True}, settings={"selection": {"method": "norm"}},
    )  # fmt: skip
    (line,) = sentences.undone_by(replace(sources, pairs={"pt_it": sources.pairs["pt_it"], "x": by_norm}))
    assert line.startswith("pt_simpo: the two models are of two families, so that latents are counted by")
    notes = [
        {tile["name"]: tile["note"] for tile in pair_tiles(pair)}["Tuned-exclusive"]
        for pair in (sources.pairs["pt_it"], by_norm)
    ]
    assert notes == ["passed latent scaling", "passed the test of decoder norms"]


@pytest.mark.parametrize(
    ("selection", "told"),
    [
        ({}, "Exclusive: |nu_error| < 0.2 and |nu_reconstruction| < 0.5 (dashed box), and delta_norm on"),
        ({"method": "both", "nu_activation": 0.25}, "|nu_activation| < 0.25, and delta_norm in that model's"),
        ({"method": "norm"}, "With selection=norm calls rest on decoder norms alone. Dashed box: |nu_error|"),
    ],
)  # fmt: skip
def test_the_caption_of_the_ratios_says_what_the_call_asks_of_them(
    sources: Sources, selection: dict[str, Any], told: str
) -> None:
    pair = replace(sources.pairs["pt_simpo"], settings={"selection": selection})
    assert told in caveats.nu_caption(pair)


def test_pairs_with_different_bases_are_told_in_the_first_line(sources: Sources) -> None:
    base = {"path": "a/base", "revision": None, "adapter": None, "towards": None, "distance": 0.0}

    def first(**other: str | None) -> str:
        bases = ({**base, "fingerprint": "f"}, {**base, "fingerprint": "f", **other})
        pairs = {
            name: replace(pair, base=one)
            for (name, pair), one in zip(sources.pairs.items(), bases, strict=True)
        }
        return " ".join(sentences.undone_by(replace(sources, pairs=pairs)))

    assert "different base models (pt_it: a/base; pt_simpo: b/base)" in first(path="b/base", fingerprint="g")
    assert "different base models" in first(adapter="an/adapter")
    assert "different base models" in first(path="b/base", fingerprint=None)
    assert "different base models" not in first(path="a/copy")
    assert "different base models" not in first(fingerprint=None)
    assert caveats.different_bases(sources) == []  # no harvest among the artifacts: unknown


def test_every_count_set_aside_has_a_row(sources: Sources) -> None:
    pair = replace(
        sources.pairs["pt_it"],
        diagnostics={"rejected": {"tuned": {"nu_error": 7}, "base": {"min_tokens": 2}}},
        selection={"not_taken": {"exclusive_tuned": 4}, "near_duplicates_dropped": 9},
    )
    rows = set_aside(pair)
    assert ("train", "latents never active (dead)", 30) in rows
    assert ("scale", "tuned side, stopped first by: complete shrinkage (nu_error)", 7) in rows
    assert ("scale", "base side, stopped first by: too few tokens", 2) in rows
    assert ("documents", "latents not taken, exclusive tuned", 4) in rows
    assert ("documents", "near-duplicate documents dropped", 9) in rows
    assert ("annotate", "tuned-exclusive latents: refused", 1) in rows


def test_a_label_that_stands_on_fewer_votes_is_counted(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    labelled = next(
        row for row in pair.annotations if row["state"] == "ok" and row["role"] == "exclusive_tuned"
    )
    failed = {**labelled, "failed_votes": {"refused": 1}}
    rows = set_aside(replace(pair, annotations=[failed]))
    assert ("annotate", "labelled exclusive latents of which a vote was refused", 1) in rows
