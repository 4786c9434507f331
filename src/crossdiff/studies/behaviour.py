"""Do latent changes go with behaviour? Rates of what both tuned models say, beside the category changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from crossdiff.behaviour.rates import wilson
from crossdiff.io.tables import read_json
from crossdiff.models.pair import fingerprint
from crossdiff.report import tables
from crossdiff.report.findings import Chart, Findings
from crossdiff.report.products import RunProducts
from crossdiff.report.words import readable
from crossdiff.stages.generate import GenerateInputs
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study
from crossdiff.studies.changes import CategoryCounts
from crossdiff.studies.pairs import three_models
from crossdiff.taxonomy.pooling import spearman

ABSTAINING = ("abstention_unanswerable", "abstention_false_premise")
"""Sets whose behaviour is to abstain; an answer without it is counted as confabulated."""
PROMPT_TOKENS = 30
SIDES = ("reference", "treatment")


class Behaviour(Study):
    """Answers of both tuned models to `n_prompts` prompts of every set, for every seed."""

    QUESTION: ClassVar[str] = "Do the changes of latents go with changes of behaviour?"

    seeds: tuple[int, ...] = Field(min_length=1)
    prompts: Literal["planted", "built_in"]
    judge: Literal["rules"] = "rules"
    n_prompts: int = Field(ge=1)
    n_new_tokens: int = Field(ge=1)

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """One comparison per seed."""
        three_models(experiment, "behaviour")
        return {f"seed_{seed}": {"seed": seed} for seed in self.seeds}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """Per seed the answers of the reference's and of the treatment's tuned model."""
        comparison = three_models(experiment, "behaviour")
        models = dict(zip(SIDES, (comparison.reference.tuned, comparison.treatment.tuned), strict=True))
        found = {}
        for seed in self.seeds:
            toy = experiment.organism.model_copy(update={"seed": seed})
            for side, model in models.items():
                inputs = GenerateInputs(
                    model=model,
                    fingerprint=fingerprint(model),
                    toy=toy if self.prompts == "planted" else None,
                    n_prompts=self.n_prompts,
                    n_new_tokens=self.n_new_tokens,
                    seed=seed,
                )
                found[f"seed_{seed}_{side}"] = ExtraStep(
                    "generate",
                    model.name,
                    inputs,
                    {"organism": From(f"seed_{seed}", "organism", optional=True)},
                    (model,),
                    30 * self.n_prompts * (self.n_new_tokens + PROMPT_TOKENS),
                )
        return found

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Rank correlations over (seed, category) points, and the rates with intervals."""
        said = {name: read_json(folder / "rates.json")["sets"] for name, folder in extras.items()}
        points = [point for run in runs.values() for point in _points(run, said)]
        against = {"measured rates": correlation(points, "rate")}
        if any(point["planted"] == point["planted"] for point in points):
            against = {"number of behaviours": correlation(points, "planted"), **against}
        pooled = pooled_rates(said)
        notes = [_rates_note(pooled), *_hallucination(pooled)]
        return Findings(
            _answer(against, pooled),
            notes=tuple(notes),
            charts=(_correlations(against), _scatter(points), _rates(pooled)),
            numbers={"correlations": against, "rates": pooled, "n_points": len(points)},
        )


def _points(run: RunProducts, said: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Per set of a run: log change of latents, of measured rates (1/2 added), of planted behaviours."""
    counts = CategoryCounts.of([run])
    logs = dict(zip(counts.names, counts.log_changes()[0].tolist(), strict=True))
    planted = {row["name"]: row for row in (run.comparison or {}).get("planted") or ()}
    reference, treatment = ({row["name"]: row for row in said[f"{run.name}_{side}"]} for side in SIDES)
    found = []
    for name, before in reference.items():
        after, category = treatment[name], before["category"]
        rate = np.log((after["shown"] + 0.5) / (after["n"] + 1)) - np.log(
            (before["shown"] + 0.5) / (before["n"] + 1)
        )
        truth = planted.get(category)
        behaviours = np.log1p(truth["change"]) if truth and truth["change"] > -1 else np.nan
        found.append(
            {
                "run": run.name, "name": name, "latents": logs.get(category, float("nan")),
                "rate": float(rate), "planted": float(behaviours),
            }
        )  # fmt: skip
    return found


def correlation(
    points: Sequence[Mapping[str, Any]], with_what: str, *, draws: int = 2000
) -> dict[str, float | int]:
    """Spearman's rho of latent change with another change; 95 % percentile interval over resampled points.

    Points without either value are left out; NaN where fewer than three are left or one side is constant.
    """
    left = np.array([point["latents"] for point in points], dtype=float)
    right = np.array([point[with_what] for point in points], dtype=float)
    known = ~np.isnan(left) & ~np.isnan(right)
    left, right = left[known], right[known]
    if len(left) < 3:
        return {"n": len(left), "rho": float("nan"), "ci_low": float("nan"), "ci_high": float("nan")}
    generator = np.random.default_rng([0, 13])
    chosen = generator.integers(len(left), size=(draws, len(left)))
    drawn = np.array([_rho(left[row], right[row]) for row in chosen])
    low, high = _bounds(drawn)
    return {"n": len(left), "rho": _rho(left, right), "ci_low": low, "ci_high": high}


def _rho(left: NDArray, right: NDArray) -> float:
    return spearman(left, right) if np.ptp(left) and np.ptp(right) else float("nan")


def _bounds(drawn: NDArray) -> tuple[float, float]:
    known = drawn[~np.isnan(drawn)]
    if not len(known):
        return float("nan"), float("nan")
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)


def pooled_rates(said: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Per set: shown and asked of both sides over all seeds, rates with Wilson's 95 % interval."""
    found: dict[str, dict[str, Any]] = {}
    for name, rows in said.items():
        side = name.rsplit("_", 1)[1]
        for row in rows:
            own = found.setdefault(row["name"], {"name": row["name"], "category": row["category"]})
            shown, n = own.get(side, (0, 0))
            own[side] = (shown + row["shown"], n + row["n"])
    for own in found.values():
        for side in SIDES:
            own[f"rate_{side}"] = own[side][0] / own[side][1]
            own[f"interval_{side}"] = wilson(*own[side])
    return list(found.values())


def _correlations(against: Mapping[str, Mapping[str, float]]) -> Chart:
    from crossdiff.report.figures.curves import Point, rows

    points = [Point(name, each["rho"], each["ci_low"], each["ci_high"]) for name, each in against.items()]
    body = [[name, each["n"], each["rho"], each["ci_low"], each["ci_high"]] for name, each in against.items()]
    return Chart(
        "correlations",
        "Rank correlation of latent changes with changes of behaviour",
        "Spearman's rho over (seed, category) points; bars are 95 % intervals over resampled points.",
        rows({"rho": points}, x_title="Spearman's rho"),
        tables.plain(["With the change of", "Points", "rho", "Low", "High"], body, numeric=range(1, 5)),
    )


def _scatter(points: Sequence[Mapping[str, Any]]) -> Chart:
    body = [
        [point["run"], readable(point["name"]), point["latents"], point["rate"], point["planted"]]
        for point in points
    ]
    titles = ["Run", "Set", "Log change of latents", "Log change of rate", "Log change of planted behaviours"]
    caption = "Natural logarithms of ratios, treatment over reference; 1/2 added to counts that can be 0."
    return Chart("points", "Every point", caption, table=tables.plain(titles, body, numeric=[2, 3, 4]))


def _rates(pooled: Sequence[Mapping[str, Any]]) -> Chart:
    from crossdiff.report.figures.curves import Point, rows

    series = {
        side: [Point(readable(own["name"]), own[f"rate_{side}"], *own[f"interval_{side}"]) for own in pooled]
        for side in SIDES
    }
    body = [
        [readable(own["name"]), *(f"{own[side][0]} of {own[side][1]}" for side in SIDES),
         *(own[f"rate_{side}"] for side in SIDES)]
        for own in pooled
    ]  # fmt: skip
    return Chart(
        "rates",
        "How often each model shows the behaviours of a set",
        "Share of answers, judged by rules; bars are Wilson's 95 % intervals.",
        rows(series, x_title="share of answers", zero=False),
        tables.plain(["Set", "Reference", "Treatment", "Rate r.", "Rate t."], body, numeric=[3, 4]),
    )


def _totals(pooled: Sequence[Mapping[str, Any]], side: str) -> tuple[int, int]:
    return sum(own[side][0] for own in pooled), sum(own[side][1] for own in pooled)


def _rates_note(pooled: Sequence[Mapping[str, Any]]) -> str:
    parts = ["{} of {} answers of the {}".format(*_totals(pooled, side), side) for side in SIDES]
    return f"Behaviours were shown in {' and '.join(parts)}."


def _hallucination(pooled: Sequence[Mapping[str, Any]]) -> list[str]:
    """Confabulation = 1 - abstention, for questions that have no answer."""
    own = [row for row in pooled if row["name"] in ABSTAINING]
    if not own:
        return []
    texts = []
    for side in SIDES:
        shown, n = _totals(own, side)
        low, high = wilson(n - shown, n)
        texts.append(
            f"{side}: abstains in {shown} of {n}, confabulates in {n - shown} ({low:.0%} to {high:.0%})"
        )
    return [f"Unanswerable and false-premise questions: {'; '.join(texts)}."]


def _answer(against: Mapping[str, Mapping[str, float]], pooled: Sequence[Mapping[str, Any]]) -> str:
    if not sum(_totals(pooled, side)[0] for side in SIDES):
        start = "Neither model showed any behaviour when asked, so nothing can be said about measured rates"
        kept = {name: each for name, each in against.items() if name != "measured rates"}
        return f"{start}. {_told(kept)}." if kept else f"{start}."
    return f"{_told(against)}."


def _told(against: Mapping[str, Mapping[str, float]]) -> str:
    parts = []
    for name, each in against.items():
        if each["rho"] != each["rho"]:
            parts.append(
                f"whether latent changes go with the change of {name} is unknown ({each['n']} points)"
            )
            continue
        if each["ci_low"] > 0:
            verdict = "go with"
        else:
            verdict = "run against" if each["ci_high"] < 0 else "show no relation to"
        parts.append(
            f"latent changes {verdict} the change of {name} (rho {each['rho']:+.2f}, 95 % interval "
            f"{each['ci_low']:+.2f} to {each['ci_high']:+.2f})"
        )
    text = ", and ".join(parts)
    return text[:1].upper() + text[1:]
