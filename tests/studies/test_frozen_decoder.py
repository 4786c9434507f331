"""The frozen decoder null: one pair twice on shared harvests; figures by hand; a sentence for every case."""

import json
from collections import Counter

import pytest

from crossdiff.studies.frozen_decoder import FrozenDecoder, answer, figures
from tests.composed import experiment
from tests.study_products import write_run


def test_the_second_crosscoder_alone_has_fixed_independent_directions() -> None:
    from crossdiff.pipeline.plan import plan

    steps = plan(experiment("experiment=frozen_decoder", "size=ci"))
    assert [step.stage for step in steps].count("harvest") == 2
    trains = [step.inputs for step in steps if step.stage == "train"]
    found = {(t.training.frozen_decoder, t.dictionary.initial_decoders) for t in trains}  # type: ignore[attr-defined]
    assert found == {(False, "equal"), (True, "independent")}
    assert len(trains) == 2


def test_figures_by_hand_and_the_answer(tmp_path) -> None:
    """200 alive latents: 10 frozen calls are 50 of 1,000; 5 of 10 labels name one, against 30 of 40."""
    made = {
        "frozen": {"pt_it": Counter({"mathematics": 5, "other": 4, "uninterpretable": 1})},
        "trained": {"pt_it": Counter({"mathematics": 30, "other": 10})},
    }
    runs = {name: write_run(tmp_path / name, labels) for name, labels in made.items()}
    found = figures(runs["frozen"])
    assert (found["n_alive"], found["n_exclusive"], found["n_named"], found["n_labelled"]) == (200, 10, 5, 10)
    assert found["per_1000"]["value"] == pytest.approx(50)
    assert found["per_1000"]["low"] == pytest.approx(27.4, abs=0.1)
    assert found["named"]["value"] == 0.5
    assert found["detection"] is None
    findings = FrozenDecoder().analyse(runs, {})
    assert "50.0 (27.4 to 89.6) are called exclusive with fixed random directions" in findings.answer
    assert "no sign of a learned latent" in findings.answer
    assert "were not taken" in findings.answer
    assert findings.answer.endswith(".")
    changes = findings.numbers["categories"]  # 5 of 10 against 30 of 40: one category, and no difference
    assert (changes["n_intervals"], changes["n_clear"], changes["n_significant"]) == (1, 0, 0)
    assert changes["clear"]["high"] == pytest.approx(0.793, abs=1e-3)  # z^2 / (1 + z^2) of 0 of 1
    assert (
        "of 1 categories the intervals of 0 exclude no change between the two: 0% (0% to 79%)"
        in findings.answer
    )


def test_a_category_that_the_frozen_dictionary_alone_has_is_a_clear_interval(tmp_path) -> None:
    made = {"trained": Counter({"other": 50}), "frozen": Counter({"mathematics": 30, "other": 20})}
    runs = {name: write_run(tmp_path / name, {"pt_it": labels}) for name, labels in made.items()}
    changes = FrozenDecoder().analyse(runs, {}).numbers["categories"]
    assert (changes["n_intervals"], changes["n_clear"], changes["n_significant"]) == (1, 1, 1)


def test_scores_are_means_over_exclusive_latents(tmp_path) -> None:
    runs = {}
    for name, scores in {"trained": (0.9, 0.7), "frozen": (0.6, None)}.items():
        runs[name] = write_run(tmp_path / name, {"pt_it": Counter({"mathematics": 2})})
        rows = runs[name].annotations("pt_it")
        rows = [row | {"scores": {"detection": s}} for row, s in zip(rows, scores, strict=True)]
        rows.append(rows[0] | {"role": "control_shared", "scores": {"detection": 0.0}})
        path = tmp_path / name / "annotations.pt_it.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    numbers = {name: figures(run) for name, run in runs.items()}
    assert numbers["trained"]["detection"] == pytest.approx(0.8)
    assert numbers["frozen"]["detection"] == pytest.approx(0.6)
    assert "detection 0.60 and 0.80" in answer(numbers)


def test_a_run_without_labels_is_told(tmp_path) -> None:
    labels = {"trained": Counter({"mathematics": 3}), "frozen": Counter()}
    runs = {name: write_run(tmp_path / name, {"pt_it": count}) for name, count in labels.items()}
    assert "cannot be compared" in FrozenDecoder().analyse(runs, {}).answer
