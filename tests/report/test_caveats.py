from __future__ import annotations

from dataclasses import replace

from crossdiff.report import caveats
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
