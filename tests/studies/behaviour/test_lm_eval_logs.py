"""Results and samples as lm-evaluation-harness writes them."""

import json
from pathlib import Path
from typing import Any

import pytest

from crossdiff.studies.behaviour.binary_scores import LoggedSet
from crossdiff.studies.behaviour.lm_eval_logs import is_results, model_of, read_results, read_samples

DATE = "2026-11-01T10-20-30.123456"
RESULTS: dict[str, Any] = {
    "results": {
        "gsm8k": {
            "alias": "gsm8k", "sample_len": 8, "exact_match,strict-match": 0.625,
            "exact_match_stderr,strict-match": 0.18, "exact_match,flexible-extract": 0.75,
        },
        "wikitext": {"alias": "wikitext", "word_perplexity,none": 1.0, "word_perplexity_stderr,none": "N/A"},
        "mmlu": {"alias": "mmlu", "acc,none": 0.5},
        "odd": {"alias": "odd", "acc,none": 0.3},
    },
    "group_subtasks": {"mmlu": ["mmlu_law"], "gsm8k": []},
    "n-samples": {name: {"original": 1319, "effective": 8} for name in ("gsm8k", "wikitext", "odd")},
    "config": {"model": "hf", "model_args": "pretrained=google/gemma-2-9b-it,dtype=bfloat16"},
}  # fmt: skip


def test_shares_of_right_answers_become_counts_and_the_rest_is_left_out() -> None:
    """0.625 and 0.75 of 8 answers are 5 and 6; 0.3 of 8 is no number of answers; a group is left out."""
    log = read_results(RESULTS, Path("results_x.json"))
    assert log.sets == (
        LoggedSet(name="gsm8k/exact_match,strict-match", task="gsm8k", shown=5, n=8),
        LoggedSet(name="gsm8k/exact_match,flexible-extract", task="gsm8k", shown=6, n=8),
    )
    assert log.model == "google/gemma-2-9b-it"
    assert set(log.left_out) == {"wikitext/word_perplexity", "odd/acc"}
    assert "need not be a share" in log.left_out["wikitext/word_perplexity"]
    assert "no whole number" in log.left_out["odd/acc"]


def test_a_share_without_a_number_of_answers_is_left_out() -> None:
    log = read_results({**RESULTS, "n-samples": {}}, Path("results_x.json"))
    assert log.sets == ()
    assert "does not say of how many" in log.left_out["gsm8k/exact_match,strict-match"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"model_name": "a/b"}, "a/b"),
        ({"config": {"model_args": {"pretrained": "a/b", "peft": "c/d"}}}, "c/d"),
        ({"config": {"model_args": "dtype=float32,pretrained=a/b"}}, "a/b"),
        ({"config": {}}, None),
    ],
)
def test_the_model_is_the_adapter_or_what_was_pretrained(data: dict, expected: str | None) -> None:
    assert model_of(data) == expected


def write(folder: Path, lines: list[dict[str, Any]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"samples_my_task_{DATE}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


LINES = [
    {"doc_id": number, "doc": {}, "filter": chosen, "metrics": ["exact_match", "f1"],
     "exact_match": float(number < right), "f1": 0.4}
    for chosen, right in (("none", 1), ("flexible", 3)) for number in range(4)
]  # fmt: skip


def test_samples_are_counted_per_filter_and_the_folder_names_the_model(tmp_path: Path) -> None:
    log = read_samples(write(tmp_path / "google__gemma-2-9b-it", LINES))
    assert log.model == "google/gemma-2-9b-it"
    assert log.sets == (
        LoggedSet(name="my_task/exact_match", task="my_task", shown=1, n=4),
        LoggedSet(name="my_task/exact_match,flexible", task="my_task", shown=3, n=4),
    )
    assert set(log.left_out) == {"my_task/f1", "my_task/f1,flexible"}


def test_the_results_beside_samples_name_the_model(tmp_path: Path) -> None:
    path = write(tmp_path / "somewhere", LINES)
    (path.parent / f"results_{DATE}.json").write_text(json.dumps(RESULTS))
    assert read_samples(path).model == "google/gemma-2-9b-it"


def test_samples_that_cannot_be_counted_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="document 0 twice"):
        read_samples(write(tmp_path, LINES + LINES[:1]))
    with pytest.raises(ValueError, match="line 1 of .* is no sample"):
        read_samples(write(tmp_path, [{"text": "a chat"}]))
    (tmp_path / "mine.jsonl").write_text("{}")
    with pytest.raises(ValueError, match="is not called samples_"):
        read_samples(tmp_path / "mine.jsonl")


def test_only_results_are_taken_for_results() -> None:
    assert is_results(RESULTS)
    assert not any(map(is_results, ({}, [], {"results": []}, {"results": {}})))
