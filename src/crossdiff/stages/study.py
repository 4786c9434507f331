"""Stage study: the reports of a study's runs -> its answer, tables and page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from pydantic import SerializeAsAny

from crossdiff.annotation.settings import AnnotatorSettings
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.sparsity import Sparsity
from crossdiff.data.corpus import CorpusSettings
from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import write_json
from crossdiff.models.pair import ModelPair, ModelSettings
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.import_crosscoder import fingerprint
from crossdiff.stages.protocol import EVERYTHING, Stage, needs
from crossdiff.stages.train import TrainInputs
from crossdiff.taxonomy.scheme import TaxonomySettings
from crossdiff.training.settings import TrainingSettings

if TYPE_CHECKING:
    from crossdiff.report.runs import RunProducts
    from crossdiff.report.study_page import Findings

VERSION = 6
Changes = Mapping[str, Any]
"""Field -> value of the experiment that a run of the study changes."""


class AskedComparison(Protocol):
    """Two pairs that share their base."""

    @property
    def reference(self) -> ModelPair: ...  # noqa: D102
    @property
    def treatment(self) -> ModelPair: ...  # noqa: D102


class Asked(Protocol):
    """The part of `crossdiff.config.Experiment` that a study may read."""

    @property
    def layer(self) -> int: ...  # noqa: D102
    @property
    def annotator(self) -> AnnotatorSettings: ...  # noqa: D102
    @property
    def taxonomy(self) -> TaxonomySettings: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def draws(self) -> int: ...  # noqa: D102
    @property
    def pairs(self) -> tuple[ModelPair, ...]: ...  # noqa: D102
    @property
    def comparison(self) -> AskedComparison | None: ...  # noqa: D102
    @property
    def organism(self) -> ToySettings: ...  # noqa: D102
    @property
    def corpus(self) -> CorpusSettings: ...  # noqa: D102
    @property
    def mask(self) -> MaskSettings: ...  # noqa: D102
    @property
    def selection(self) -> SelectionSettings: ...  # noqa: D102
    @property
    def dictionary(self) -> DictionarySettings: ...  # noqa: D102
    @property
    def sparsity(self) -> Sparsity: ...  # noqa: D102
    @property
    def training(self) -> TrainingSettings: ...  # noqa: D102


def train_inputs(experiment: Asked, *, seed: int) -> TrainInputs:
    """The experiment's training, with the given seed."""
    return TrainInputs(
        layer=experiment.layer,
        dictionary=experiment.dictionary,
        sparsity=experiment.sparsity,
        training=experiment.training,
        mask=experiment.mask,
        seed=seed,
        start=None if experiment.training.start is None else fingerprint(experiment.training.start),
    )


@dataclass(frozen=True)
class From:
    """A step of a run or groundwork, by stage and label; an `optional` one may be missing (no organism).

    The label of a harvest is its model's name, that of train, scale and documents the pair's.
    """

    run: str
    stage: str
    label: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class ExtraStep:
    """A step that only this study needs; `parents` are steps of its runs or extra steps."""

    stage: str
    label: str
    inputs: Settings
    parents: Mapping[str, From | ExtraStep] = field(default_factory=dict)
    models: tuple[ModelSettings, ...] = ()  # which it loads, for the estimate of the cost
    n_tokens: int = 0
    """Tokens per model, read and written, for the estimate of the cost."""
    api_usd: float = 0.0
    """Estimated cost of its API calls, US dollars."""
    n_labelled: int = 0
    """Latents or topics that the annotator labels, for the estimate of the cost."""
    n_train_steps: int = 0
    """Training steps of all crosscoders that it trains, for the estimate of the cost."""
    encoder_flops: float = 0.0
    """FLOPs of these steps' encoder products, for the estimate of the cost."""


class NeedsModels(ValueError):
    """A study that can only be planned with models that the user names."""


class Study(Settings):
    """A question, the runs that answer it, and the analysis; one subclass per study (crossdiff.studies).

    The planner makes an experiment of every entry of `runs` (a copy with the named fields changed), merges
    their steps, adds `extras` and ends with this stage.
    """

    QUESTION: ClassVar[str]
    READS_CROSSCODERS: ClassVar[bool] = False
    """Whether its runs may use crosscoders that the pairs name; other studies train theirs."""

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """Name of each run -> its changes; by default one run without changes."""
        return {"run": {}}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """Name -> changes of experiments without a report, whose steps `extras` may read."""
        return {}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """Name -> step beyond those of the runs' reports."""
        return {}

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """The answer, from finished reports and the artifacts of `extras`."""
        raise NotImplementedError(f"{type(self).__name__} has no analysis")


class StudyInputs(Settings):
    """The study, and the names of its runs and extra steps (roles `run_<name>`, `extra_<name>`)."""

    title: str
    study: SerializeAsAny[Study]
    runs: tuple[str, ...]
    extras: tuple[str, ...] = ()


def run(inputs: StudyInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `report.html`, `summary.json` and one CSV file per table."""
    from crossdiff.report.export import write_csv
    from crossdiff.report.runs import RunProducts
    from crossdiff.report.study_page import render

    runs = {name: RunProducts(name, parents[f"run_{name}"]) for name in inputs.runs}
    extras = {name: parents[f"extra_{name}"] for name in inputs.extras}
    findings = inputs.study.analyse(runs, extras)
    question = inputs.study.QUESTION
    page = render(findings, title=inputs.title, question=question, artifacts=_ordered(parents))
    (draft / "report.html").write_text(page, encoding="utf-8")
    for name, table in findings.tables():
        write_csv(table, draft / f"{name}.csv")
    write_json(summary(inputs, findings, runs), draft / "summary.json")
    return {"n_runs": len(runs), "n_charts": len(findings.charts), "answer": findings.answer}


def summary(inputs: StudyInputs, findings: Findings, runs: Mapping[str, RunProducts]) -> dict[str, Any]:
    """Content of summary.json: question, answer, the study's numbers, every run's pairs."""
    from crossdiff.report.formatting import finite

    return finite(
        {
            "version": 1,
            "study": type(inputs.study).__name__,
            "question": inputs.study.QUESTION,
            "answer": findings.answer,
            "notes": list(findings.notes),
            "numbers": findings.numbers,
            "runs": {name: run.summary["pairs"] for name, run in runs.items()},
        }
    )


def _ordered(parents: Mapping[str, Path]) -> Sequence[tuple[str, Path]]:
    return [(role.split("_", 1)[1], folder) for role, folder in parents.items()]


STAGE = Stage(
    "study",
    version=VERSION,
    run=run,
    reads=EVERYTHING,
    writes="a study's page, answer and tables",
    resources=needs(memory_gb=16, hours=1),
)
