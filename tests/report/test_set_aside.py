from __future__ import annotations

from dataclasses import replace

from crossdiff.report.set_aside import set_aside
from crossdiff.report.sources import Sources


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
