"""The toy's part of the contenders' table: runs of a kind, counts by hand, and who finds the trigger."""

from typing import Any

import pandas as pd
import pytest

from crossdiff.core.sparsity import L1, BatchTopK
from crossdiff.pipeline.plan import plan
from crossdiff.studies.contenders import on_toy, shown
from crossdiff.studies.planted.step import contenders, difference_contenders
from tests.composed import experiment


def test_a_kind_takes_the_experiments_k_and_keeps_its_penalty_and_architecture() -> None:
    asked = experiment("experiment=contenders", "size=ci")
    kinds = {kind.name: kind for kind in (*contenders(), *difference_contenders())}
    found = {name: on_toy.changes(asked, kind, trigger_share=0.01) for name, kind in kinds.items()}
    assert isinstance(found["l1"]["sparsity"], L1)
    assert found["l1"]["dictionary"].initial_norm == 0.1
    assert isinstance(found["dedicated"]["sparsity"], BatchTopK)
    assert found["dedicated"]["sparsity"].k == asked.sparsity.k  # type: ignore[union-attr]
    assert found["diff_sae"]["dictionary"].architecture == "diff_sae"
    assert found["batch_topk"]["dictionary"] == asked.dictionary
    assert found["batch_topk"]["organism"].trigger_share == 0.01
    other = experiment("experiment=contenders", "size=ci", "dictionary.architecture=delta")
    assert on_toy.changes(other, kinds["batch_topk"], trigger_share=0)["dictionary"] == asked.dictionary


def test_intervals_are_counted_on_their_side_by_hand() -> None:
    """a and b were planted up: one interval is above 0, one below; the kept c has one above 0."""
    truth = [
        {"name": name, "change": change} for name, change in (("a", 3.0), ("b", 3.0), ("c", 0.0), ("d", -1))
    ]
    rows = [
        ("a", 0.1, 2.0),
        ("b", -0.9, -0.1),
        ("c", 0.2, 0.4),
        ("d", float("nan"), float("nan")),
        ("other", 1, 2),
    ]
    deltas = pd.DataFrame(rows, columns=["name", "ci_low", "ci_high"]).assign(level="category")
    assert on_toy.planted_changes(truth, deltas) == {
        "n_right": 1, "n_wrong": 1, "n_false": 1, "n_changed": 3, "n_kept": 1
    }  # fmt: skip


def best(score: float) -> dict[str, Any]:
    return {"held_out": score, "null_95": 0.1}


def row(any_score: float, called: float | None, *, calls: bool = True) -> dict[str, Any]:
    of_called = None if called is None else best(called)
    return {
        "spearman": 0.5, "n_right": 3, "n_wrong": 1, "n_changed": 20, "n_false": 0, "n_kept": 10,
        "n_held": 8, "n_with_interval": 12, "null": None,
        "triggered": {"any": best(any_score), "called": of_called, "calls": calls, "n_triggered": 1,
                      "n_documents": 100},
    }  # fmt: skip


def test_a_method_finds_the_trigger_where_a_called_latent_beats_the_null() -> None:
    rows = {
        "one": row(0.9, 0.05),
        "two": row(0.9, 0.8),
        "three": row(0.9, None),
        "four": row(0.4, None, calls=False),
    }
    said = shown.toy_sentence(rows)
    assert said == (
        "Of 20 planted changes on the toy, one, two, three, four have 3 intervals on their side; on the "
        "wrong side one, two, three, four have 1. The triggered behaviour is found by two, four, "
        "not by one, three."
    )
    assert "Every kind on the toy finds" in shown.toy_sentence({"two": rows["two"], "other": None})
    assert "No kind on the toy finds" in shown.toy_sentence({"one": rows["one"]})
    assert "0.32 at most" in shown.ceiling_note(rows)  # 1/3 * 95/99
    untriggered = {
        "one": {**rows["one"], "triggered": None, "n_wrong": 0},
        "two": {**rows["two"], "n_right": 1},
    }
    assert "one has 3 intervals on their side, two 1; on the wrong side two has 1." in shown.toy_sentence(
        untriggered
    )
    assert shown.toy_sentence({"one": None}) == shown.ceiling_note({"one": None}) == ""
    assert shown.toy_cells(None, otherwise="-") == ["-"] * len(shown.TOY_TITLES)
    assert shown.toy_cells(rows["three"], otherwise="-")[-1] == "none called"


def test_the_plan_has_two_pairs_a_seed_null_and_one_organism_for_all_kinds() -> None:
    options = ("experiment=contenders", "size=ci", "study.toy_kinds=[batch_topk,diff_sae]", "study.only=[l1]")
    steps = plan(experiment(*options))
    stages = [step.stage for step in steps]
    counts = {
        name: stages.count(name) for name in ("organism", "tokens", "harvest", "train", "report", "isolation")
    }
    assert counts == {"organism": 1, "tokens": 1, "harvest": 3, "train": 6, "report": 4, "isolation": 2}
    assert stages.count("represented") == stages.count("outputs") // 2 == 1
    organism = next(step for step in steps if step.stage == "organism")
    assert organism.inputs.toy.trigger_share == pytest.approx(0.01)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "other", [("comparison=it_vs_simpo", "layer=20"), ("comparison.treatment.tuned.path=organism:it_2",)]
)
def test_other_models_are_refused_with_the_way_out(other: tuple[str, ...]) -> None:
    """Of a further tuning of the toy the planted changes are not the truth."""
    options = ("experiment=contenders", "size=ci", "study.toy_kinds=[l1]")
    with pytest.raises(ValueError, match=r"toy's two pairs.*study.toy_kinds=\[\]"):
        on_toy.asked_comparison(experiment(*options, *other))
