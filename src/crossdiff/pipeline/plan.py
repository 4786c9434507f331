"""An experiment as its list of steps, parents first.

The planner builds the steps of a comparison; a study has one planner for each of its runs. What no step could
do (fill a batch from too few tokens, compare a model with itself) is refused here, before anything runs.
"""

from __future__ import annotations

from crossdiff.config import Experiment
from crossdiff.pipeline.checks import check_length, check_two_models
from crossdiff.pipeline.planner import Planner, ordered
from crossdiff.pipeline.steps import Step
from crossdiff.pipeline.study import study_step


def plan(experiment: Experiment) -> list[Step]:
    """Every step that the experiment's report stands on; the report (of a study, the study) is the last."""
    if experiment.study is None:
        planner = Planner(experiment)
        check_length(planner.experiment.corpus, experiment.training)
        for pair in experiment.pairs:
            check_two_models(pair, planner.activations(pair))
        return ordered(planner.report)
    return ordered(study_step(experiment, experiment.study))
