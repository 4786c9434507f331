"""Results of lm-evaluation-harness: `results_<date>.json`, `samples_<task>_<date>.jsonl` (--log_samples)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from crossdiff.studies.behaviour.binary_scores import Log, LoggedSet, log_of

SAMPLES = re.compile(r"samples_(?P<task>.+)_(?P<date>\d{4}-\d\d-\d\dT[\d.\-]+)\.jsonl")
SHARES = frozenset(
    {"acc", "acc_norm", "exact_match", "em", "pass@1", "pass_at_1", "prompt_level_strict_acc"}
    | {"prompt_level_loose_acc", "math_verify", "json_validity", "schema_compliance"}
)
"""Metrics whose mean is a share of right answers, so that it gives their number."""
OLD_METRICS = ("acc", "acc_norm", "exact_match")
"""Read from a line that does not list its metrics (before version 0.4.3)."""
NO_FILTER = "none"


def is_results(data: Any) -> bool:
    """Whether a JSON object is a results file of lm-evaluation-harness."""
    if not isinstance(data, dict) or not isinstance(data.get("results"), dict):
        return False
    return "n-samples" in data or "configs" in data or "lm_eval_version" in data


def read_results(data: Mapping[str, Any], path: Path) -> Log:
    """Every task that is no group: `share * n` of n answers; a mean that gives no whole number is not."""
    sets, left_out = [], {}
    groups = {name for name, parts in (data.get("group_subtasks") or {}).items() if parts}
    groups |= set(data.get("groups") or {})
    for task, metrics in data["results"].items():
        if task in groups or not isinstance(metrics, dict):
            continue
        for key, value in metrics.items():
            metric, _, chosen = key.partition(",")
            if not isinstance(value, int | float) or isinstance(value, bool) or metric.endswith("_stderr"):
                continue
            if metric in ("sample_len", "sample_count"):
                continue
            name = _name(metric, chosen or NO_FILTER)
            found = _from_mean(metric, float(value), _n(data, task), task=task, name=f"{task}/{name}")
            if isinstance(found, LoggedSet):
                sets.append(found)
            else:
                left_out[f"{task}/{name}"] = found
    return Log(model_of(data), tuple(sets), left_out)


def _n(data: Mapping[str, Any], task: str) -> int | None:
    counts = (data.get("n-samples") or {}).get(task) or {}
    found = counts.get("effective") if isinstance(counts, dict) else None
    return found if isinstance(found, int) and found > 0 else None


def _from_mean(metric: str, mean: float, n: int | None, *, task: str, name: str) -> LoggedSet | str:
    if metric not in SHARES:
        return (
            "its mean need not be a share of right answers; run with --log_samples and give samples_*.jsonl"
        )
    if n is None:
        return "the file does not say of how many answers; run with --log_samples and give samples_*.jsonl"
    shown = round(mean * n) if 0 <= mean <= 1 else -1
    if shown < 0 or abs(mean * n - shown) > 1e-6 * n:
        return f"{mean:.6g} of {n} answers is no whole number"
    return LoggedSet(name=name, task=task, shown=shown, n=n)


def _name(metric: str, chosen: str) -> str:
    return metric if chosen == NO_FILTER else f"{metric},{chosen}"


def model_of(data: Mapping[str, Any]) -> str | None:
    """The evaluated model: an adapter before the model under it, as the tool names its folders."""
    if data.get("model_name"):
        return str(data["model_name"])
    arguments = (data.get("config") or {}).get("model_args")
    if isinstance(arguments, str):
        arguments = dict(part.split("=", 1) for part in arguments.split(",") if "=" in part)
    if not isinstance(arguments, Mapping):
        return None
    return next((str(arguments[name]) for name in ("peft", "delta", "pretrained") if name in arguments), None)


def read_samples(path: Path) -> Log:
    """The answers of one task, one line per document and filter; its folder tells the model."""
    match = SAMPLES.fullmatch(path.name)
    if match is None:
        raise ValueError(
            f"{path} is not called samples_<task>_<date>.jsonl, as lm-evaluation-harness names it, so its "
            "task is unknown; give it its name back"
        )
    scores: dict[str, list[Any]] = {}
    seen: set[tuple[str, str]] = set()
    for number, line in _lines(path):
        chosen = str(line.get("filter", NO_FILTER))
        place = (str(line.get("doc_id", number)), chosen)
        if place in seen:
            raise ValueError(f"{path} has document {place[0]} twice; give the log of one evaluation")
        seen.add(place)
        for metric in line.get("metrics") or [name for name in OLD_METRICS if name in line]:
            scores.setdefault(_name(str(metric), chosen), []).append(line.get(metric))
    return log_of(_model_beside(path, match["date"]), match["task"], scores)


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with path.open(encoding="utf-8") as handle:
        for number, text in enumerate(handle, 1):
            if not text.strip():
                continue
            try:
                line = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise ValueError(f"line {number} of {path} is not JSON: {error}") from error
            if not isinstance(line, dict) or ("doc" not in line and "doc_id" not in line):
                raise ValueError(f"line {number} of {path} is no sample of lm-evaluation-harness")
            yield number, line


def _model_beside(path: Path, date: str) -> str:
    """The model that the results file of the same date names, else the name of the folder."""
    results = path.with_name(f"results_{date}.json")
    if results.is_file():
        data = json.loads(results.read_text(encoding="utf-8"))
        if is_results(data) and (model := model_of(data)):
            return model
    return path.resolve().parent.name.replace("__", "/")
