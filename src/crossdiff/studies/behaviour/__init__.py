"""Study: do category changes of latents go with behaviour? Rates in both tuned models' answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from crossdiff.io.tables import read_json
from crossdiff.models.config_file import check_can_be_asked
from crossdiff.models.pair import ModelSettings, fingerprint
from crossdiff.report import tables
from crossdiff.report.formatting import between, readable, told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study
from crossdiff.statistics.pooling import MIN_CATEGORIES, correlation
from crossdiff.studies.behaviour.answers import (
    SIDES,
    GenerateInputs,
    hallucination_notes,
    pooled_rates,
    rates_chart,
    rates_note,
    totals,
)
from crossdiff.studies.behaviour.judge import judge_notes, judged
from crossdiff.studies.behaviour.logs import logged
from crossdiff.studies.changes import CategoryCounts
from crossdiff.studies.shared import three_models

PROMPT_TOKENS = 30


class Behaviour(Study):
    """Answers of both tuned models to `n_prompts` prompts of every set, for every seed; rates out of logs.

    Logs of other tools (`logs`: files or folders) are read when the plan is made; their counts are a step of
    each model, so paths are no part of a key.
    """

    QUESTION: ClassVar[str] = "Do the changes of latents go with changes of behaviour?"

    seeds: tuple[int, ...] = Field(min_length=1)
    prompts: Literal["planted", "built_in", "none"]
    judge: Literal["rules", "annotator"] = "rules"
    n_prompts: int = Field(ge=1)
    n_new_tokens: int = Field(ge=1)
    logs: tuple[str, ...] = ()
    """Logs of inspect_ai and lm-evaluation-harness about both tuned models; `<side>=<path>` tells whose."""
    categories: dict[str, str] | None = None
    """Task of a log, or `<task>/<score>`, and its category; `not <category>`: wrong answers show it."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"logs", "categories"})

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """One comparison per seed."""
        three_models(experiment, "behaviour")
        return {f"seed_{seed}": {"seed": seed} for seed in self.seeds}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """Answers of the reference's and the treatment's tuned model per seed, and the rates of logs."""
        if self.prompts == "none" and not self.logs:
            raise ValueError(
                "study.prompts=none asks the models nothing; give study.logs=[...] or prompts=built_in"
            )
        comparison = three_models(experiment, "behaviour")
        models: dict[str, ModelSettings] = dict(
            zip(SIDES, (comparison.reference.tuned, comparison.treatment.tuned), strict=True)
        )
        steps = logged(self.logs, models, self.categories or {})
        for seed in self.seeds if self.prompts != "none" else ():
            toy = experiment.organism.model_copy(update={"seed": seed})
            for side, model in models.items():
                check_can_be_asked(model)
                inputs = GenerateInputs(
                    model=model,
                    fingerprint=fingerprint(model),
                    toy=toy if self.prompts == "planted" else None,
                    n_prompts=self.n_prompts,
                    n_new_tokens=self.n_new_tokens,
                    seed=seed,
                )
                answers = ExtraStep(
                    "generate",
                    model.name,
                    inputs,
                    {"organism": From(f"seed_{seed}", "organism", optional=True)},
                    (model,),
                    30 * self.n_prompts * (self.n_new_tokens + PROMPT_TOKENS),
                )
                steps[f"seed_{seed}_{side}"] = self._judged(answers, experiment)
        return steps

    def _judged(self, answers: ExtraStep, experiment: Asked) -> ExtraStep:
        """The step with the rates: `answers`, judged by rules, or the annotator's judgements."""
        if self.judge == "rules":
            return answers
        if self.prompts == "planted":
            raise ValueError(
                "study.judge=annotator with study.prompts=planted: a planted phrase is a set of words, which "
                "rules recognise exactly; give study.judge=rules, or study.prompts=built_in"
            )
        return judged(answers, experiment.annotator, n_prompts=self.n_prompts, n_new_tokens=self.n_new_tokens)

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Rank correlations over categories, and the rates with intervals."""
        records = {name: read_json(folder / "rates.json") for name, folder in extras.items()}
        sets = {name: record["sets"] for name, record in records.items()}
        points = [point for run in runs.values() for point in _points(run, sets)]
        outside = [records[f"logs_{side}"] for side in SIDES if f"logs_{side}" in records]
        against = {"measured rates": correlation(points, "rate")}
        if any(point["planted"] == point["planted"] for point in points):
            against = {"number of behaviours": correlation(points, "planted"), **against}
        pooled = pooled_rates(sets)
        notes = [rates_note(pooled), *hallucination_notes(pooled), *judge_notes(records.values())]
        notes += [note for record in outside[:1] for note in record["notes"]]
        return Findings(
            _answer(against, pooled),
            notes=tuple(notes),
            charts=(_correlations(against), _scatter(points), rates_chart(pooled)),
            numbers={"correlations": against, "rates": pooled, "n_points": len(points), "judge": self.judge},
        )


def _points(run: RunProducts, sets: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Log changes of latents, measured rates (1/2 added) and planted behaviours, per set of a run."""
    counts = CategoryCounts.of([run])
    logs = dict(zip(counts.names, counts.log_changes()[0].tolist(), strict=True))
    planted = {row["name"]: row for row in (run.comparison or {}).get("planted") or ()}
    reference, treatment = (
        {row["name"]: row for name in (f"{run.name}_{side}", f"logs_{side}") for row in sets.get(name, ())}
        for side in SIDES
    )
    points = []
    for name, before in reference.items():
        after, category = treatment[name], before["category"]
        rate = _log_rate(after) - _log_rate(before)
        truth = planted.get(category)
        behaviours = np.log1p(truth["change"]) if truth and truth["change"] > -1 else np.nan
        points.append(
            {
                "run": run.name, "name": name, "category": category,
                "latents": logs.get(category, float("nan")),
                "rate": rate, "planted": float(behaviours),
            }
        )  # fmt: skip
    return points


def _log_rate(row: Mapping[str, Any]) -> float:
    """Log rate of a set's answers; NaN where none was judged."""
    return float(np.log((row["shown"] + 0.5) / (row["n"] + 1))) if row["n"] else float("nan")


def _correlations(against: Mapping[str, Mapping[str, float]]) -> Chart:
    from crossdiff.report.figures.curves import Point, rows

    points = [Point(name, row["rho"], row["ci_low"], row["ci_high"]) for name, row in against.items()]
    body = [[name, row["n"], row["rho"], row["ci_low"], row["ci_high"]] for name, row in against.items()]
    return Chart(
        "correlations",
        "Rank correlation of latent changes with changes of behaviour",
        "Spearman's rho over categories, each the mean of its tasks, scores and runs; bars are 95 % "
        f"intervals over resampled categories (none below {MIN_CATEGORIES}).",
        rows({"rho": points}, x_title="Spearman's rho"),
        tables.plain(["With the change of", "Categories", "rho", "Low", "High"], body, numeric=range(1, 5)),
    )


def _scatter(points: Sequence[Mapping[str, Any]]) -> Chart:
    body = [
        [point["run"], readable(point["name"]), point["latents"], point["rate"], point["planted"]]
        for point in points
    ]
    titles = ["Run", "Set", "Log change of latents", "Log change of rate", "Log change of planted behaviours"]
    caption = "Natural logarithms of ratios, treatment over reference; 1/2 added to counts that can be 0."
    return Chart("points", "Every point", caption, table=tables.plain(titles, body, numeric=[2, 3, 4]))


def _answer(against: Mapping[str, Mapping[str, float]], pooled: Sequence[Mapping[str, Any]]) -> str:
    if not sum(totals(pooled, side)[0] for side in SIDES):
        asked = sum(totals(pooled, side)[1] for side in SIDES)
        start = "Neither model showed any behaviour when asked" if asked else "No answer was judged"
        start += ", so nothing can be said about measured rates"
        kept = {name: row for name, row in against.items() if name != "measured rates"}
        return f"{start}. {_told(kept)}." if kept else f"{start}."
    return f"{_told(against)}."


def _told(against: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for name, row in against.items():
        if any(row[key] != row[key] for key in ("rho", "ci_low", "ci_high")):
            parts.append(
                f"whether latent changes go with the change of {name} is unknown "
                f"({row['n']} categories; an interval needs {MIN_CATEGORIES})"
            )
            continue
        if row["ci_low"] > 0:
            verdict = "go with"
        else:
            verdict = "run against" if row["ci_high"] < 0 else "show no relation to"
        parts.append(
            f"latent changes {verdict} the change of {name} (rho {told(row['rho'], '+.2f')}, "
            f"95 % interval {between(row['ci_low'], row['ci_high'], '+.2f')})"
        )
    text = ", and ".join(parts)
    return text[:1].upper() + text[1:]
