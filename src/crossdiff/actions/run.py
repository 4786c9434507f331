"""The actions run, plan, train, status, and SLURM's cancel and retry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from crossdiff.command_settings import LocalDispatch, SlurmDispatch
from crossdiff.config import Experiment
from crossdiff.dispatch import local, status
from crossdiff.dispatch.loggers import Tracker, tracker
from crossdiff.dispatch.remote import Publication
from crossdiff.dispatch.sbatch import refuse_unfit_jobs, resources_of
from crossdiff.dispatch.slurm import Submission
from crossdiff.io.environment import choose_device
from crossdiff.io.progress import show_notices
from crossdiff.pipeline.checks import notices, refuse_missing_keys
from crossdiff.pipeline.cost import CPU_HOURS_ALLOWED, describe, plan_table, remaining_cost
from crossdiff.pipeline.memory import memory_line, refuse_what_does_not_fit
from crossdiff.pipeline.plan import plan, results_of_runs, without_failed
from crossdiff.pipeline.planner import ordered
from crossdiff.pipeline.results import check_folder, publish_results
from crossdiff.pipeline.steps import Step, merge
from crossdiff.settings import Runtime


def perform(experiments: Sequence[Experiment]) -> int:
    """Plan the grid points together, then show, run, submit or follow their steps; returns the exit code."""
    first = experiments[0]
    if first.action == "train":
        return train(experiments)
    plans = [plan(experiment) for experiment in experiments]
    steps = merge(plans)
    if first.plan or first.action in ("run", "plan"):
        tell_notices(experiments)
    if first.plan or first.action == "plan":
        if isinstance(first.dispatch, SlurmDispatch):
            _refuse_unfit_jobs(steps, first, first.dispatch)
        print(plan_table(steps, first.store))
        if (line := memory_line(steps, first.store)) is not None:
            print(line)
        tell_missing_keys(steps, first.store)
        return 0
    if first.action in ("run", "retry"):
        for experiment in experiments:
            check_folder(experiment.results)
        refuse_missing_keys(steps, first.store)
    if isinstance(first.dispatch, SlurmDispatch) and first.action in ("run", "status", "cancel", "retry"):
        return status.perform(first.action, _submission(experiments, plans, steps, first.dispatch))
    match first.action:
        case "run":
            return _run(experiments, steps)
        case "status":
            print(plan_table(steps, first.store))
            return 0
        case "cancel" | "retry":
            raise ValueError(
                f"action={first.action} acts on SLURM jobs; repeat their command with dispatch=slurm"
            )
    raise AssertionError(f"{first.action} is no action on steps")


def _refuse_unfit_jobs(steps: Sequence[Step], first: Experiment, dispatch: SlurmDispatch) -> None:
    """ValueError where submitting the plan would be refused for its nodes and GPUs."""
    runtime = Runtime(store=first.store, device=first.device, n_devices=dispatch.devices)
    refuse_unfit_jobs(steps, runtime, resources_of(steps, dispatch, device=first.device))


def tell_notices(experiments: Sequence[Experiment]) -> None:
    """Print the plan's notices, each once for all grid points; a study's page has its own."""
    plain = [experiment for experiment in experiments if experiment.study is None]
    show_notices("plan", dict.fromkeys(notice for experiment in plain for notice in notices(experiment)))


def tell_missing_keys(steps: Sequence[Step], store: Path) -> None:
    """Print why the plan cannot run to its end, where an API key is missing."""
    try:
        refuse_missing_keys(steps, store)
    except ValueError as error:
        print(f"this plan cannot run yet: {error}")


def _submission(
    experiments: Sequence[Experiment],
    plans: Sequence[Sequence[Step]],
    steps: Sequence[Step],
    dispatch: SlurmDispatch,
) -> Submission:
    """The merged plan for SLURM; the node chooses the device, the report job fills results_dir."""
    first = experiments[0]
    publications = [
        Publication(report, results, tuple(ordered(report)))
        for experiment, steps_of_point in zip(experiments, plans, strict=True)
        for results, report in products(experiment, steps_of_point[-1])
    ]
    runtime = Runtime(
        store=first.store, device=first.device, n_devices=dispatch.devices, progress=first.progress
    )
    return Submission(steps, publications, runtime, dispatch, tracker(first.logger, group=sweep(experiments)))


def sweep(experiments: Sequence[Experiment]) -> str:
    """Name of a command's grid points: their common title, or the first and the number of others."""
    titles = list(dict.fromkeys(experiment.title for experiment in experiments))
    return titles[0] if len(titles) == 1 else f"{titles[0]} and {len(titles) - 1} more"


def _run(experiments: Sequence[Experiment], steps: Sequence[Step]) -> int:
    first = experiments[0]
    device = choose_device(first.device)
    if device == "cpu" and first.device == "auto" and not is_bearable(steps, first):
        return 2
    refuse_what_does_not_fit(steps, first.store, device=device)
    if first.dispatch.devices > 1:
        from crossdiff.training.nodes import check_gpus

        check_gpus(device, first.dispatch.devices, setting="dispatch.devices")
    n_workers = first.dispatch.harvest_workers if isinstance(first.dispatch, LocalDispatch) else 1
    runtime = Runtime(
        store=first.store,
        device=device,
        n_workers=n_workers,
        n_devices=first.dispatch.devices,
        progress=first.progress,
    )
    with tracker(first.logger, group=sweep(experiments)) as log:
        experiments, made = _finish(experiments, steps, runtime, log)
        plans = [plan(experiment) for experiment in experiments]
    for experiment, steps_of_point in zip(experiments, plans, strict=True):
        for results, report in products(experiment, steps_of_point[-1]):
            rows = local.rows_of(ordered(report), made)
            page = publish_results(report.folder(first.store), results, rows, store=first.store)
            log.published(results, rows, first.store)
            print(f"report: {page}", flush=True)
    return 0


def _finish(
    experiments: Sequence[Experiment], steps: Sequence[Step], runtime: Runtime, log: Tracker
) -> tuple[Sequence[Experiment], list[local.Outcome]]:
    """Run the steps; a crosscoder that fails is left out where its pair has others."""
    made: dict[str, local.Outcome] = {}
    failures: list[tuple[Step, ValueError]] = []

    def finished(outcome: local.Outcome) -> None:
        if outcome.step.key not in made:  # after a failure finished steps are reported again, as reused
            made[outcome.step.key] = outcome
            log.step_finished(outcome, runtime.store)

    n_processes = _processes(experiments[0])
    while True:
        failures.clear()
        try:
            local.run_steps(
                steps,
                runtime,
                finished=finished,
                failed=lambda step, error: failures.append((step, error)),
                n_processes=n_processes,
            )
        except ValueError:
            remaining = without_failed(experiments, [step for step, _ in failures])
            if remaining is None:
                raise
            for step, error in failures:
                _tell_failed(step, error)
            experiments, steps = remaining, merge(map(plan, remaining))
        else:
            return experiments, list(made.values())


def _processes(experiment: Experiment) -> int:
    """How many steps may run at a time on this machine."""
    dispatch = experiment.dispatch
    processes = dispatch.processes if isinstance(dispatch, LocalDispatch) else 1
    if processes == 1:
        return 1
    for name in ("devices", "shards"):
        if (asked := getattr(experiment.training, name)) > 1:
            raise ValueError(
                f"dispatch.processes={processes} gives every step one accelerator, training.{name}={asked} "
                "asks for several; give one of them"
            )
    if ":" in experiment.device:
        raise ValueError(
            f"dispatch.processes={processes} gives every step an accelerator of its own, and device="
            f"{experiment.device} names one for all; give device=cuda (and CUDA_VISIBLE_DEVICES), or "
            "dispatch.processes=1"
        )
    return processes


def products(experiment: Experiment, last: Step) -> list[tuple[Path, Step]]:
    """Results folders and their report steps: of a study's runs, then of the experiment."""
    return [*results_of_runs(last, experiment.results).items(), (experiment.results, last)]


def is_bearable(steps: Sequence[Step], experiment: Experiment) -> bool:
    """Whether a CPU can run the plan in `CPU_HOURS_ALLOWED`; else the estimate and ways out on stderr."""
    left = remaining_cost(steps, experiment.store)
    if left.cpu_hours is not None and left.cpu_hours <= CPU_HOURS_ALLOWED:
        return True
    print(plan_table(steps, experiment.store), file=sys.stderr)
    print(
        f"error: no accelerator found, and this plan asks for {describe(left)}.\n"
        "       give experiment=demo (the same on a toy, minutes), device=cpu (run it here all the "
        "same), dispatch=slurm (on a cluster), or action=plan (look only)",
        file=sys.stderr,
    )
    return False


def train(experiments: Sequence[Experiment]) -> int:
    """`action=train`: run up to training and print where every crosscoder lies; returns the exit code."""
    first = experiments[0]
    if not isinstance(first.dispatch, LocalDispatch):
        raise ValueError("action=train runs here, not through SLURM; give dispatch=local, or action=run")
    trains = [step for step in merge(map(plan, experiments)) if step.stage == "train"]
    steps = merge(map(ordered, trains))
    tell_notices(experiments)
    if first.plan:
        print(plan_table(steps, first.store))
        return 0
    device = choose_device(first.device)
    if device == "cpu" and first.device == "auto" and not is_bearable(steps, first):
        return 2
    refuse_what_does_not_fit(steps, first.store, device=device)
    workers = first.dispatch.harvest_workers
    runtime = Runtime(store=first.store, device=device, n_workers=workers, progress=first.progress)
    local.run_steps(steps, runtime, n_processes=_processes(first))
    for step in trains:
        print(f"crosscoder {step.label}: {step.folder(first.store) / 'crosscoder'}", flush=True)
    return 0


def _tell_failed(failed: Step, error: Exception) -> None:
    """Print on stderr which crosscoder is left out, and why."""
    print(
        f"warning: {failed.name} failed: {error}\n"
        f"         the comparison continues without {failed.label}, and its results say so; "
        f"'comparison.without=[{failed.label}]' asks for the same at once",
        file=sys.stderr,
        flush=True,
    )
