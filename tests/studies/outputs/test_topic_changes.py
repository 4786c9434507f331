"""Changes of topics per category by hand, beside planted ones and crosscoders."""

import numpy as np
import pytest

from crossdiff.studies.outputs.topic_changes import compared
from crossdiff.taxonomy.scheme import PaperTaxonomy

TAXONOMY = PaperTaxonomy().load()
REFERENCE = ["mathematics"] * 4 + ["role_play"] * 1 + ["other"] * 5
TREATMENT = ["mathematics"] * 1 + ["role_play"] * 4 + ["other"] * 5


def test_log_changes_by_hand() -> None:
    found = compared((REFERENCE, TREATMENT), TAXONOMY)
    assert found.topics[found.names.index("mathematics")] == pytest.approx(np.log(1.5 / 4.5))
    assert np.isnan(found.topics[found.names.index("translation")])
    assert found.numbers()["n_topics"] == [10, 10]
    assert found.sentence() == "Topics of the two pairs (10 and 10) fall into 2 of 30 categories."


def test_what_crosscoders_call_and_topics_do_not_show(make_run) -> None:
    labels = (
        {"mathematics": 90, "role_play": 20, "translation": 90},
        {"mathematics": 20, "role_play": 90, "translation": 20},
    )
    planted = [
        {"name": c.name, "change": 0.0}
        for c in TAXONOMY.categories
        if c.name not in ("mathematics", "role_play")
    ]
    planted += [{"name": "mathematics", "change": -0.5}, {"name": "role_play", "change": 2.0}]
    found = compared((REFERENCE, TREATMENT), TAXONOMY, planted=planted, beside=make_run("beside", *labels))
    seen = found.seen()
    assert (set(seen["same"]), seen["other"], seen["nothing"]) == (
        {"mathematics", "role_play"},
        [],
        ["translation"],
    )
    numbers = found.numbers()
    assert numbers["right_signs"] == {"topics": (2, 2), "crosscoders": (2, 2)}
    assert "1 were seen by the crosscoders and not by the topics" in found.sentence()
