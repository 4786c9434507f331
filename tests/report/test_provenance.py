from __future__ import annotations

from pathlib import Path

from crossdiff.report.provenance import provenance
from tests.report_artifacts import Store


def test_provenance_walks_to_every_ancestor_once(store: Store) -> None:
    found = provenance({"scale_pt_it": store.parents["scale_pt_it"], "annotate": store.parents["annotate"]})
    stages = [entry["stage"] for entry in found]
    assert sorted(stages) == ["annotate", "scale", "tokens", "train"]
    assert stages.index("tokens") < stages.index("train") < stages.index("scale")  # parents first


def test_artifacts_without_a_manifest_are_left_out_of_provenance(tmp_path: Path) -> None:
    assert provenance({"train_pt_it": tmp_path}) == []
