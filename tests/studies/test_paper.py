"""Paper: our changes beside the published ones, with the published fitting counts as a golden case."""

from collections import Counter

import pytest

from crossdiff.studies.paper import Paper
from crossdiff.studies.published import published


def labels(side: int, total: int) -> Counter[str]:
    """The smallest fitting counts as labels; classes are filled by one of their categories."""
    first = {
        "safety_moderation": "privacy_protection", "linguistic_multilingual": "translation",
        "technical": "mathematics",
    }  # fmt: skip
    counts = Counter(
        {first.get(change.name, change.name): change.counts[side] for change in published().changes}
    )
    counts["other"] += total - counts.total()
    return +counts


def test_the_published_counts_agree_with_themselves_and_exclude_nothing(make_run) -> None:
    run = make_run("comparison", labels(1, 112), labels(0, 89), n_exclusive={"pt_it": 113, "pt_simpo": 92})
    found = Paper().analyse({"comparison": run}, {})
    rows = {row["name"]: row for row in found.numbers["changes"]}
    assert rows["safety_moderation"]["change"] == pytest.approx(0.328, abs=0.001)
    assert all(row["inside"] in (True, None) for row in rows.values())
    assert not any(row["excludes_zero"] for row in rows.values())
    assert "113 and 92 against the published 113 and 92, which fit ours" in found.answer
