"""Rates from the logs of evaluations that ran elsewhere, beside those of the built-in sets.

Logs are read when the plan is made: a step `outside_rates` per model holds their counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from crossdiff.io.tables import write_json
from crossdiff.models.pair import ModelSettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.stages.study import ExtraStep
from crossdiff.studies.behaviour.binary_scores import Log, LoggedSet, side_of
from crossdiff.studies.behaviour.inspect_logs import is_inspect, read_archive, read_log
from crossdiff.studies.behaviour.lm_eval_logs import SAMPLES, is_results, read_results, read_samples

VERSION = 1
NOT = "not "
"""Before a category: the answers that the score calls wrong show its behaviour (xstest: refusing)."""
CATEGORIES = {
    "gsm8k": "mathematics",
    "gsm8k_platinum": "mathematics",
    "humaneval": "code_generation",
    "mbpp": "code_generation",
    "ifeval": "constraint_following",
    "jsonschema_bench_easy": "structured_output",
    "jsonschema_bench_medium": "structured_output",
    "jsonschema_bench_hard": "structured_output",
    "truthfulqa_mc1": "factual_verification",
    "triviaqa": "factual_verification",
    "xstest": f"{NOT}harmful_request_refusal",
}
"""Task -> category of the shipped taxonomy that it speaks to; `study.categories` adds and replaces."""
KNOWN = (
    "inspect_ai (.eval, .json) or lm-evaluation-harness (results_<date>.json, samples_<task>_<date>.jsonl)"
)


class CountedSet(LoggedSet):
    """A logged set with the category whose behaviour `shown` counts; None where no category is known."""

    category: str | None = None


class OutsideRatesInputs(Settings):
    """One model's counts; where the logs lay is no part of the key."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"logs"})

    model: str
    sets: tuple[CountedSet, ...]
    notes: tuple[str, ...] = ()
    """What the logs of both models hold beyond the sets, and what was left out."""
    logs: tuple[str, ...] = ()


def run(
    inputs: OutsideRatesInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write `rates.json`, in the form of the step `generate`."""
    rows = [one.model_dump() for one in inputs.sets]
    record = {"version": 1, "model": inputs.model, "sets": rows, "notes": list(inputs.notes)}
    record["logs"] = list(inputs.logs)
    write_json(record, draft / "rates.json")
    return {"n_sets": len(rows), "n_answers": sum(one.n for one in inputs.sets)}


STAGE = Stage(
    "outside_rates",
    version=VERSION,
    run=run,
    reads=(),
    writes="counts out of the logs of other evaluation tools",
    resources=needs(),
)


def logged(
    entries: Sequence[str], models: Mapping[str, ModelSettings], categories: Mapping[str, str]
) -> dict[str, ExtraStep]:
    """A step per model that holds the counts of its logs, `logs_<side>`; none without logs."""
    if not entries:
        return {}
    return {
        f"logs_{side}": ExtraStep(STAGE.name, models[side].name, inputs)
        for side, inputs in read_logs(entries, models, categories).items()
    }


def read_logs(
    entries: Sequence[str], models: Mapping[str, ModelSettings], categories: Mapping[str, str]
) -> dict[str, OutsideRatesInputs]:
    """Per side (`reference`, `treatment`) the sets that both have; a log goes to the side of its model.

    An entry is a file, a folder of logs, or `<side>=<either>`. ValueError for a file of another kind (in a
    folder it is skipped and noted), for a log of neither model or of a model that both sides fit, and where
    no set is on both sides.
    """
    kept: dict[str, dict[str, LoggedSet]] = {side: {} for side in models}
    sources: dict[str, list[str]] = {side: [] for side in models}
    refused: dict[str, dict[str, str]] = {side: {} for side in models}
    skipped: list[str] = []
    for given, path, in_folder in _files(entries, tuple(models)):
        try:
            log = read_file(path)
        except NotALog:
            if not in_folder:
                raise
            skipped.append(path.name)
            continue
        side = given or side_of(log, path, models)
        sources[side].append(str(path))
        refused[side] |= log.left_out
        _keep(kept[side], log, path)
    left_out = _left_out(kept, refused)
    shared = _shared(kept, left_out)
    wanted = {**CATEGORIES, **categories}
    sets = {side: tuple(_counted(kept[side][name], wanted) for name in shared) for side in models}
    notes = tuple(_notes(kept, shared, left_out, sets, skipped))
    return {
        side: OutsideRatesInputs(model=model.name, sets=sets[side], notes=notes, logs=tuple(sources[side]))
        for side, model in models.items()
    }


class NotALog(ValueError):
    """A JSON file of another kind."""


def read_file(path: Path) -> Log:
    """One file of either tool; NotALog for another kind."""
    if path.suffix == ".eval":
        return read_archive(path)
    if path.suffix == ".jsonl":
        return read_samples(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no log of {KNOWN}: it is not JSON ({error})") from error
    if is_inspect(data):
        return read_log(data, data.get("samples"), path)
    if is_results(data):
        return read_results(data, path)
    raise NotALog(f"{path} is no log of {KNOWN}; convert it into one of these")


def _files(entries: Sequence[str], sides: Sequence[str]) -> list[tuple[str | None, Path, bool]]:
    """Side, where it was named, file, and whether a folder was given: of it all logs below it."""
    found: list[tuple[str | None, Path, bool]] = []
    for entry in entries:
        side = next((side for side in sides if entry.startswith(f"{side}=")), None)
        path = Path(entry.removeprefix(f"{side}=") if side else entry).expanduser()
        if path.is_dir():
            inside = [one for one in sorted(path.rglob("*")) if one.is_file() and _may_be_log(one)]
            if not inside:
                raise ValueError(f"study.logs: the folder {path} holds no log of {KNOWN}")
            found += [(side, one, True) for one in inside]
        elif path.is_file():
            found.append((side, path, False))
        else:
            raise ValueError(f"study.logs: {path} does not exist; give files or folders of logs")
    return found


def _may_be_log(path: Path) -> bool:
    return path.suffix in (".eval", ".json") or SAMPLES.fullmatch(path.name) is not None


def _keep(kept: dict[str, LoggedSet], log: Log, path: Path) -> None:
    """Add the sets of a log; a results file may repeat what the samples beside it say."""
    for one in log.sets:
        former = kept.setdefault(one.name, one)
        if (former.shown, former.n) != (one.shown, one.n):
            raise ValueError(
                f"{path} gives {one.shown} of {one.n} for {one.name}, another log of the same model "
                f"{former.shown} of {former.n}; give one log per task and model"
            )


def _left_out(
    kept: Mapping[str, Mapping[str, LoggedSet]], refused: Mapping[str, Mapping[str, str]]
) -> dict[str, str]:
    """Scores that no file of a side could count: the samples may count what the results could not."""
    return {
        name: why
        for side, scores in refused.items()
        for name, why in scores.items()
        if name not in kept[side]
    }


def _shared(kept: Mapping[str, Mapping[str, LoggedSet]], left_out: Mapping[str, str]) -> list[str]:
    first, second = kept.values()
    shared = [name for name in first if name in second]
    if not shared:
        sides = "; ".join(f"{side}: {', '.join(sets) or 'nothing'}" for side, sets in kept.items())
        why = "; ".join(f"{name}: {text}" for name, text in left_out.items())
        raise ValueError(
            f"study.logs: no task is counted for both models ({sides}{'; left out: ' if why else ''}{why}); "
            "run the same tasks on both models"
        )
    return shared


def _counted(one: LoggedSet, categories: Mapping[str, str]) -> CountedSet:
    """The set with its category; behind `not ` the answers that are wrong show the behaviour."""
    category = categories.get(one.name, categories.get(one.task))
    fields = one.model_dump()
    if category and category.startswith(NOT):
        category = category.removeprefix(NOT).strip()
        fields["shown"] = one.n - one.shown
    return CountedSet(**fields, category=category)


def _notes(
    kept: Mapping[str, Mapping[str, LoggedSet]],
    shared: Sequence[str],
    left_out: Mapping[str, str],
    sets: Mapping[str, Sequence[CountedSet]],
    skipped: Sequence[str],
) -> list[str]:
    rows = [one for side in sets.values() for one in side]
    alone = sorted({name for sets in kept.values() for name in sets} - set(shared))
    without = sorted({one.name for one in rows if one.category is None})
    unlike = [a.name for a, b in zip(*sets.values(), strict=True) if a.n != b.n]
    unjudged, partial = sum(one.n_unjudged for one in rows), sum(one.n_partial for one in rows)
    told = {
        "evaluated for one model only": alone,
        "scores that are no yes or no": [f"{name} ({why})" for name, why in left_out.items()],
        "without a category (study.categories), so in the table and not in the correlation": without,
        "with another number of answers for each model": unlike,
        "JSON files in the folders that are no logs, so not read": sorted(set(skipped)),
    }
    notes = [f"Logs, {what}: {', '.join(names)}." for what, names in told.items() if names]
    if unjudged:
        notes.append(f"Logs: {unjudged:,} answers without a score are left out of the rates.")
    if partial:
        notes.append(f"Logs: {partial:,} partially correct answers count as not correct.")
    return notes
