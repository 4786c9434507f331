from __future__ import annotations

from crossdiff.io.artifacts import provenance
from crossdiff.report.sources import Sources, read_sources
from tests.report_artifacts import Store


def test_states_count_tuned_exclusive_latents_only(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    assert pair.states() == {"ok": 11, "refused": 1}
    assert pair.n_labelled() == 11
    assert pair.n_in_categories() == 11


def test_every_finished_member_of_a_pair_is_read_the_shown_one_first(store: Store) -> None:
    members = {"pt_it": ("pt_it", "pt_simpo", "pt_it_seed2")}  # the last one has no artifacts
    read = read_sources(store.parents, pairs=("pt_it",), reference=None, treatment=None, members=members)
    assert [one.name for one in read.crosscoders("pt_it")] == ["pt_it", "pt_simpo"]
    single = read_sources(store.parents, pairs=("pt_it",), reference=None, treatment=None)
    assert [one.name for one in single.crosscoders("pt_it")] == ["pt_it"]


def test_provenance_walks_to_every_ancestor_once(store: Store) -> None:
    found = provenance({"scale_pt_it": store.parents["scale_pt_it"], "annotate": store.parents["annotate"]})
    stages = [entry["stage"] for entry in found]
    assert sorted(stages) == ["annotate", "scale", "tokens", "train"]
    assert stages.index("tokens") < stages.index("train") < stages.index("scale")  # parents first
