"""An experiment as its list of steps, parents first.

The planner builds the steps of a comparison; a study has one planner per run. Impossible plans (too few
tokens for a batch, a model against itself) are refused here, before anything runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from crossdiff.config import Experiment
from crossdiff.pipeline import cost
from crossdiff.pipeline.activation_steps import check_study
from crossdiff.pipeline.alignment_checks import check_alignment
from crossdiff.pipeline.checks import check_length, check_two_models
from crossdiff.pipeline.crosscoder_step import check_crosscoders
from crossdiff.pipeline.planner import Planner, ordered
from crossdiff.pipeline.steps import PER_CROSSCODER, Cost, Step
from crossdiff.stages.study import ExtraStep, From, Study, StudyInputs


def plan(experiment: Experiment) -> list[Step]:
    """The report step (of a study, the study step) and all its ancestors, parents first."""
    check_crosscoders(experiment)
    check_study(experiment)
    check_alignment(experiment)
    if experiment.study is None:
        planner = Planner(experiment)
        if any(pair.crosscoder is None for pair in experiment.pairs):
            check_length(planner.experiment.corpus, experiment.training)
        for pair in experiment.pairs:
            check_two_models(pair, planner.activations(pair))
        return ordered(planner.report)
    return ordered(study_step(experiment, experiment.study))


RUN = "run_"
"""Prefix of the study step's parents that are reports of its runs."""


def study_step(experiment: Experiment, study: Study) -> Step:
    """The last step of a study; its parents are the runs' reports and the extra steps."""
    planners = {name: Planner(_derived(experiment, changes)) for name, changes in _runs(experiment, study)}
    sources = {name: Planner(_derived(experiment, c)) for name, c in study.groundwork(experiment).items()}
    extras = {
        name: _extra(step, {**sources, **planners}, experiment)
        for name, step in study.extras(experiment).items()
    }
    inputs = StudyInputs(title=experiment.title, study=study, runs=tuple(planners), extras=tuple(extras))
    parents = {f"{RUN}{name}": planner.report for name, planner in planners.items()}
    parents |= {f"extra_{name}": step for name, step in extras.items()}
    return Step("study", experiment.title, inputs, parents)


def results_of_runs(step: Step, results: Path) -> dict[Path, Step]:
    """Results folder -> report step of every run of a study; empty for other steps."""
    runs = {role.removeprefix(RUN): parent for role, parent in step.parents.items() if role.startswith(RUN)}
    return {results / name: parent for name, parent in runs.items()} if step.stage == "study" else {}


def _runs(experiment: Experiment, study: Study) -> list[tuple[str, Mapping]]:
    runs = list(study.runs(experiment).items())
    if not runs and not study.extras(experiment):
        raise ValueError(
            f"study {type(study).__name__} has no runs with these settings; change them so that it has one"
        )
    return runs


def _derived(experiment: Experiment, changes: Mapping) -> Experiment:
    """The experiment with `changes`, validated like a command's settings."""
    copy = experiment.model_copy(update={"study": None, "name": None, **changes})
    fields = {field.alias or name: getattr(copy, name) for name, field in Experiment.model_fields.items()}
    return Experiment.model_validate(fields)


def _extra(asked: ExtraStep, planners: Mapping[str, Planner], experiment: Experiment) -> Step:
    parents = {
        role: _extra(wanted, planners, experiment)
        if isinstance(wanted, ExtraStep)
        else _find(wanted, planners, asked)
        for role, wanted in asked.parents.items()
    }
    present = {role: step for role, step in parents.items() if step is not None}
    return Step(asked.stage, asked.label, asked.inputs, present, _cost(asked, experiment))


def _find(wanted: From, planners: Mapping[str, Planner], asked: ExtraStep) -> Step | None:
    for step in ordered(planners[wanted.run].report):
        if step.stage == wanted.stage and wanted.label in (None, step.label):
            return step
    if wanted.optional:
        return None
    raise ValueError(
        f"{asked.stage} {asked.label} needs the step {wanted.stage} {wanted.label or ''} of run "
        f"{wanted.run!r}, which that run does not have; choose pairs and models that give it"
    )


def _cost(asked: ExtraStep, experiment: Experiment) -> Cost:
    """Trainings, forward passes of `asked.n_tokens` tokens through every model, API calls and labels."""
    total = Cost(api_usd=asked.api_usd) + cost.label_cost(experiment.annotator, asked.n_labelled)
    total = total + cost.products_cost(asked.encoder_flops * cost.STEP_PER_ENCODER_PRODUCT)
    total = total + cost.steps_cost(asked.n_train_steps)
    for model in asked.models:
        shape = cost.model_shape(model, experiment.organism)
        layer = 0 if shape is None else shape.n_blocks - 1
        size = cost.harvest_cost(shape, layer=layer, n_tokens=asked.n_tokens, bytes_per_value=0)
        total = total + size
    return total


def without_failed(experiments: Sequence[Experiment], failed: Sequence[Step]) -> list[Experiment] | None:
    """The experiments without the crosscoders of the failed steps; None where an experiment needs one.

    `comparison.without` then names the crosscoder, in the experiments whose plan has the failed step.
    None where nothing would change, so that the same plan never runs twice.
    """
    changed = list(experiments)
    for step in failed:
        needing = [n for n, one in enumerate(changed) if step.key in {other.key for other in plan(one)}]
        for n in needing:
            comparison = changed[n].comparison
            if comparison is None or not _has_others(changed[n], step):
                return None
            smaller = comparison.model_copy(update={"without": (*comparison.without, step.label)})
            changed[n] = changed[n].model_copy(update={"comparison": smaller})
    return changed if changed != list(experiments) else None


def _has_others(experiment: Experiment, failed: Step) -> bool:
    """Whether the step belongs to one crosscoder of a pair that has others."""
    if experiment.study is not None or failed.stage not in PER_CROSSCODER:
        return False
    groups = [[member.name for member in members] for members in experiment.members.values()]
    return any(failed.label in names and len(names) > 1 for names in groups)
