"""Study: what dictionary size, sparsity and loss form change."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from crossdiff.core.sparsity import L1, BatchTopK, JumpReLU, LargestK, Sparsity, TopK
from crossdiff.report import tables
from crossdiff.report.formatting import told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Chart, Findings
from crossdiff.stages.study import Asked, Changes, Study
from crossdiff.studies.shared import count_interval, count_point

if TYPE_CHECKING:
    from crossdiff.report.figures.curves import Point

Kind = Literal["batch_topk", "topk", "l1", "jumprelu"]
FIGURES = ("fve_base", "fve_tuned", "l0", "dead_share", "n_exclusive", "n_exclusive_base", "n_undecided")
BY_NORM = {"n_by_norm": "tuned_only", "n_by_norm_base": "base_only"}


class Ablation(Study):
    """Every combination of `n_latents`, `k`, `sparsities` and `losses` on the reference pair.

    l1 and jumprelu have a penalty and no `k`; they run once per size and loss.
    """

    QUESTION: ClassVar[str] = "What do dictionary size, k, sparsity and loss form change?"

    n_latents: tuple[int, ...] = Field(min_length=1)
    k: tuple[int, ...] = Field(min_length=1)
    sparsities: tuple[Kind, ...] = Field(min_length=1)
    losses: tuple[Literal["norm", "squared"], ...] = Field(min_length=1)
    l1: L1
    l1_initial_norm: float = Field(default=0.005, gt=0)
    jumprelu: JumpReLU

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """One run per combination, on the reference pair alone."""
        pair = {"comparison": None, "model_pair": experiment.pairs[0]}
        changes: dict[str, Changes] = {}
        for n_latents, kind, loss in product(self.n_latents, self.sparsities, self.losses):
            for sparsity in self._settings(kind, experiment.sparsity):
                k = f"_k{sparsity.k}" if isinstance(sparsity, LargestK) else ""
                sizes: dict[str, Any] = {"n_latents": n_latents}
                if kind == "l1":
                    sizes["initial_norm"] = self.l1_initial_norm
                changes[f"{kind}{k}_{n_latents}_{loss}"] = {
                    **pair,
                    "dictionary": experiment.dictionary.model_copy(update=sizes),
                    "sparsity": sparsity,
                    "training": experiment.training.model_copy(update={"loss": loss}),
                }
        return changes

    def _settings(self, kind: Kind, asked: Sparsity) -> list[Sparsity]:
        """Settings per `k`, annealed from `4 * k` over the experiment's steps; one for l1 and jumprelu."""
        anneal = asked.anneal_steps if isinstance(asked, LargestK) else 0
        match kind:
            case "l1":
                return [self.l1]
            case "jumprelu":
                return [self.jumprelu]
            case "batch_topk":
                return [BatchTopK(k=k, k_initial=4 * k, anneal_steps=anneal) for k in self.k]
            case "topk":
                return [TopK(k=k, k_initial=4 * k, anneal_steps=anneal) for k in self.k]

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Quality and exclusive counts of every run."""
        choices = {name: _figures(run) for name, run in runs.items()}
        rows = [[_plain(name), *figures.values()] for name, figures in choices.items()]
        titles = ["Run", *map(_plain, (*FIGURES, *BY_NORM))]
        table = tables.plain(titles, rows, numeric=range(1, len(titles)))
        return Findings(
            _answer(choices),
            notes=(
                "L0 is that of the inference threshold on held-out tokens; FVE is per model, in raw units.",
                "n by norm: latents that norms alone put into the outer bins (tuned_only, base_only); "
                "n exclusive: latents that pass latent scaling, for which the larger norm is enough.",
            ),
            charts=(_counts(choices), _quality(choices, table)),
            numbers=choices,
        )


def _figures(run: RunProducts) -> dict[str, Any]:
    figures, kinds = run.figures(run.pairs[0]), list(run.latents(run.pairs[0])["kind"])
    by_norm = {column: kinds.count(kind) for column, kind in BY_NORM.items()}
    return {**{column: figures[column] for column in FIGURES}, **by_norm}


def _counts(choices: Mapping[str, Mapping[str, Any]]) -> Chart:
    from crossdiff.report.figures.curves import rows

    def points(column: str) -> list[Point]:
        return [count_point(_plain(name), figures[column]) for name, figures in choices.items()]

    return Chart(
        "exclusive",
        "Tuned-exclusive latents of every choice",
        "Latents that pass latent scaling, and latents whose decoder norms alone look exclusive; "
        "bars are 95 % intervals of a Poisson count.",
        rows(
            {"latent scaling": points("n_exclusive"), "norms alone": points("n_by_norm")}, x_title="latents"
        ),
    )


def _quality(choices: Mapping[str, Mapping[str, Any]], table: tables.Table) -> Chart:
    from crossdiff.report.figures.curves import Point, rows

    def points(column: str) -> list[Point]:
        return [Point(_plain(name), _number(figures[column])) for name, figures in choices.items()]

    figure = rows({"base": points("fve_base"), "tuned": points("fve_tuned")}, x_title="FVE", zero=False)
    caption = "Fraction of variance explained on held-out tokens, per model; all figures in the table."
    return Chart("quality", "Reconstruction of every choice", caption, figure, table)


def _answer(choices: Mapping[str, Mapping[str, Any]]) -> str:
    counts = {name: figures["n_exclusive"] for name, figures in choices.items()}
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    low = count_interval(counts[most])[0] > count_interval(counts[least])[1]
    clear = "more than counting noise" if low else "within counting noise"
    numbers = (
        f"{counts[least]} ({_plain(least)}) to {counts[most]} ({_plain(most)}), {clear}"
        if counts[least] < counts[most]
        else f"{counts[most]} with every one"
    )
    start = f"Over {len(choices)} choices the tuned-exclusive latents number {numbers}; the worse model's FVE"
    worst = {name: _worse(figures) for name, figures in choices.items()}
    known = {name: value for name, value in worst.items() if value == value}
    if not known:
        return f"{start} is unknown."
    best = max(known, key=known.__getitem__)
    return (
        f"{start} is best with {_plain(best)} ({told(known[best], '.3f')}) and lowest at "
        f"{told(min(known.values()), '.3f')}."
    )


def _worse(figures: Mapping[str, Any]) -> float:
    """The lower FVE of the two models; NaN where either is unknown."""
    both = [_number(figures["fve_base"]), _number(figures["fve_tuned"])]
    return min(both) if all(value == value for value in both) else float("nan")


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _plain(name: str) -> str:
    return name.replace("_", " ")
