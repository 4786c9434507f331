"""The null of two tunings: one base, other tuned models; counts by hand; a sentence for every case."""

from pathlib import Path

import pytest

from crossdiff.pipeline.plan import plan
from crossdiff.stages.study import NeedsModels
from crossdiff.studies.two_tunings import TwoTunings, answer, rates
from tests.composed import experiment
from tests.model_folders import save_model


def planned(*more: str):
    return plan(experiment("experiment=two_tunings", *more))


def test_the_toy_is_tuned_again_and_shares_everything_else() -> None:
    steps = planned("size=ci")
    stages = [step.stage for step in steps]
    counted = [stages.count(name) for name in ("organism", "tokens", "tune_again", "harvest", "train")]
    assert counted == [1, 1, 1, 3, 2]
    compared = next(step for step in steps if step.stage == "compare")
    assert "organism" not in compared.parents  # nothing was planted between two tunings
    shared = {step.key for step in plan(experiment("experiment=seed_null", "size=ci"))}
    kept = [step for step in steps if step.key in shared]
    assert {"organism", "tokens", "harvest", "train"} <= {step.stage for step in kept}


def test_every_further_comparison_has_two_tunings_of_its_own() -> None:
    steps = planned("size=toy", "study.n_comparisons=2")
    assert sorted(s.inputs.number for s in steps if s.stage == "tune_again") == [2, 3, 4]  # type: ignore[attr-defined]
    assert {step.label for step in steps if step.stage == "compare"} == {
        "toy_pt_it_vs_toy_pt_it_tuning2", "toy_pt_it_tuning3_vs_toy_pt_it_tuning4",
    }  # fmt: skip


def test_several_crosscoders_per_pair_are_kept() -> None:
    assert sum(step.stage == "train" for step in planned("size=ci", "comparison.n_seeds=2")) == 4


def test_a_crosscoder_that_is_left_out_stays_out() -> None:
    """Of the ordinary comparison pt-simpo's is none of these pairs'."""
    without = "comparison.without=[toy_pt_it_seed1,toy_pt_simpo_seed1]"
    steps = planned("size=ci", "comparison.n_seeds=2", without)
    trained = {step.label for step in steps if step.stage == "train"}
    assert trained == {"toy_pt_it", "toy_pt_it_tuning2", "toy_pt_it_tuning2_seed1"}


def test_other_models_are_named_by_the_user(tmp_path: Path) -> None:
    with pytest.raises(NeedsModels, match="study.again="):
        planned("size=paper")
    names = enumerate(("base", "one", "two"))
    folders = [save_model(tmp_path / name, "llama", seed=seed) for seed, name in names]
    (tmp_path / "texts.jsonl").write_text('{"text": "one two three"}\n' * 40)
    asked = (
        "size=ci", "~comparison", "model_pair=custom", f"model_pair.base={folders[0]}",
        f"model_pair.tuned={folders[1]}", "layer=1", "corpus=files", f"corpus.paths=[{tmp_path}/texts.jsonl]",
    )  # fmt: skip
    steps = planned(*asked, f"study.again={folders[2]}")
    harvested = [step.inputs.model.path for step in steps if step.stage == "harvest"]  # type: ignore[attr-defined]
    assert sorted(harvested) == sorted(map(str, folders))
    with pytest.raises(ValueError, match="equal weights show no change"):
        planned(*asked, f"study.again={folders[1]}")


def test_counts_by_hand(make_run) -> None:
    """Of 400 alive latents 3 are new: 7.5 of 1,000; one category of one is called, 30 of 30."""
    matched = {
        pair: {"n_exclusive": 50, "twin": 40, "new": new} for pair, new in (("pt_it", 1), ("pt_simpo", 2))
    }
    run = make_run(
        "run", {"other": 50}, {"mathematics": 30, "other": 20}, comparison={"matched": {"counts": matched}}
    )
    findings = TwoTunings().analyse({"it_it_2": run}, {})
    found = findings.numbers["rates"]
    assert found["new"]["value"] == pytest.approx(7.5)
    assert (found["new"]["low"], found["new"]["high"]) == pytest.approx((2.55, 21.8), abs=0.05)
    assert found["significant"]["value"] == found["clear"]["value"] == 30
    assert "1 of 1 categories are called changed" in findings.answer
    assert "3 of 400 alive latents" in findings.answer
    assert len(findings.notes) == 1
    named = TwoTunings(again="other", n_comparisons=3).analyse({"it_it_2": run}, {})
    assert named.notes[-1].endswith("one second model is named, so one comparison is made.")


def test_nothing_labelled_is_told() -> None:
    counts = {"n_intervals": 0, "n_clear": 0, "n_significant": 0, "n_new": 0, "n_alive": 0}
    assert rates(counts) == {"clear": None, "significant": None, "new": None}
    assert "nothing to show" in answer({**counts, "rates": rates(counts)})
