"""Whether the nodes and GPUs that SLURM jobs ask for fit the processes that share their steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from crossdiff.command_settings import SlurmDispatch
from crossdiff.dispatch.sbatch import stage_resources
from crossdiff.pipeline.steps import Job, Step, group
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import Resources

Kind = tuple[bool, str]
"""Whether a step is imported, and its stage."""


def resources_of(steps: Sequence[Step], dispatch: SlurmDispatch, *, device: str) -> dict[Kind, Resources]:
    """What a job of each kind of step asks for; an imported step is one process, on one node."""
    kinds = {(step.is_imported, step.stage): step.definition for step in steps}
    asked = {
        kind: stage_resources([stage], dispatch, device=device)[stage.name] for kind, stage in kinds.items()
    }
    return {
        (imported, stage): one.model_copy(update={"nodes": None}) if imported else one
        for (imported, stage), one in asked.items()
    }


def refuse_unfit_jobs(steps: Sequence[Step], runtime: Runtime, resources: Mapping[Kind, Resources]) -> None:
    """ValueError where the processes of an unfinished step find too few GPUs, or do not fit its nodes."""
    for job in group([step for step in steps if not step.is_finished(runtime.store)]):
        refuse_unfit(job, runtime, resources[job.is_imported, job.stage])


def refuse_unfit(job: Job, runtime: Runtime, resources: Resources) -> None:
    """ValueError where that holds of one job."""
    n_nodes, n_gpus, of_stage = resources.nodes or 1, resources.gpus or 0, f"dispatch.stages.{job.stage}"
    count = job.steps[0].definition.ranks
    setting, n_ranks = count(job.inputs, runtime) if count else ("", 1)
    if n_nodes > 1 and n_ranks == 1:
        way_out = f"give {setting}={n_nodes} or a multiple, or " if count else ""
        raise ValueError(
            f"{job.name} is one process, and {of_stage}.nodes={n_nodes} nodes share the processes of a step; "
            f"{way_out}leave out nodes for {job.stage} (dispatch.stages.train.nodes=2 is that of train alone)"
        )
    if n_ranks % n_nodes:
        raise ValueError(
            f"{setting}={n_ranks} processes do not divide into {of_stage}.nodes={n_nodes}; give a multiple"
        )
    each = n_ranks // n_nodes
    if 0 < n_gpus < each:
        raise ValueError(
            f"{setting}={n_ranks} needs {each} GPU(s) on each of {n_nodes} node(s), and {job.name} asks for "
            f"{n_gpus}; give {of_stage}.gpus={each}, or a smaller {setting}"
        )
