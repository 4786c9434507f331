from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas as pd

from crossdiff.report import sentences
from crossdiff.report.sources import ComparisonSource, Sources

COLUMNS = [
    "level", "name", "parent", "count_reference", "total_reference", "count_treatment", "total_treatment",
    "share_reference", "share_treatment", "relative_change", "ci_low", "ci_high", "p_value", "q_value",
]  # fmt: skip


def comparison(*q_values: float, totals: tuple[int, int] = (113, 92)) -> ComparisonSource:
    rows = [
        ["category", f"c{i}", "k", 10, totals[0], 20, totals[1], 0.1, 0.2, 1.0, 0.1, 2.0, q, q]
        for i, q in enumerate(q_values)
    ]
    rows.append(["class", "k", None, 20, totals[0], 40, totals[1], 0.2, 0.4, 1.0, -0.1, 2.0, 0.5, 0.5])
    rows.append(["category", "other", None, 1, totals[0], 1, totals[1], 0.0, 0.0, 0.0, -0.9, 9.0, 0.01, None])
    return ComparisonSource("pt_it", "pt_simpo", pd.DataFrame(rows, columns=COLUMNS), {})


def test_the_chart_says_how_many_intervals_chance_would_clear() -> None:
    lines = sentences.comparison_lines(comparison(0.01, 0.2, 0.049))
    assert lines[0].startswith("3 category intervals are clear of 0; by chance alone about 0.15 of 3")


def test_unanswered_latents_are_named_by_state() -> None:
    source = replace(
        comparison(0.2), facts={"unanswered": {"pt_it": {"refused": 3, "ok": 0}, "pt_simpo": {}}}
    )
    assert "Outside the totals, pt_it: 3 refused without an answer." in sentences.comparison_lines(source)


def test_too_few_documents_for_an_interval_are_told(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    few = replace(pair, latents=pair.latents.assign(n_documents=4))
    told = " ".join(item["text"] for item in sentences.failure_signatures(few))
    assert "No latent is active in more than 4 documents and an interval needs 5" in told
    enough = replace(pair, latents=pair.latents.assign(n_documents=5))
    assert "interval needs" not in " ".join(item["text"] for item in sentences.failure_signatures(enough))


def test_signatures_warn_of_poor_reconstruction_and_a_bad_threshold(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    assert sentences.failure_signatures(pair)[0]["level"] == "ok"
    poor = replace(pair, training={"fve_base": 0.5, "fve_tuned": 0.9, "k": 32, "l0": 64.0, "dead_share": 0.3})
    told = " ".join(item["text"] for item in sentences.failure_signatures(poor))
    assert "50.0 % of the base model" in told
    assert "64.0 latents are active per token, trained for 32" in told
    assert "30.0 % of the latents are dead" in told


def test_an_fve_that_the_first_tokens_carry_is_warned_of_and_says_what_to_do(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    figures = {"fve_base": 0.995, "fve_without_first_base": -1.16, "fve_tuned": 0.9}
    texts = [item["text"] for item in sentences.failure_signatures(replace(pair, training=figures))]
    assert len(texts) == 1
    assert "the base model's FVE: 0.995 with it, -1.160 without" in texts[0]
    assert "mask.skip_first=2 (or mask.outlier_norm=10, which source=live does not have)" in texts[0]
    fine = figures | {"fve_without_first_base": 0.95}
    assert sentences.failure_signatures(replace(pair, training=fine))[0]["level"] == "ok"
    scaled = {"fve": {"tuned": 0.9}, "fve_without_first": {"tuned": 0.2}}
    older = replace(pair, training={"fve_base": 0.9, "fve_tuned": 0.9}, diagnostics=scaled)
    assert "tuned model's FVE: 0.900 with it, 0.200" in sentences.failure_signatures(older)[0]["text"]


def test_a_signature_of_the_diagnostics_is_passed_on(sources: Sources) -> None:
    pair = replace(
        sources.pairs["pt_it"], diagnostics={"signature": {"sentence": "This pair is too similar."}}
    )
    assert sentences.failure_signatures(pair) == [{"level": "warn", "text": "This pair is too similar."}]


def test_lexical_labels_are_called_keywords(sources: Sources) -> None:
    assert any("keywords, not meanings" in line for line in sentences.leads(sources))


def test_no_report_text_depends_on_where_it_was_made(page: str) -> None:
    assert str(Path.cwd()) not in page
