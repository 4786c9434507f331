from __future__ import annotations

from crossdiff.report.sources import Sources


def test_states_count_tuned_exclusive_latents_only(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    assert pair.states() == {"ok": 11, "refused": 1}
    assert pair.n_labelled() == 11
    assert pair.n_in_categories() == 11
