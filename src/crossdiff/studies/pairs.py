"""What several studies ask of an experiment: its three models, and pairs made of them."""

from __future__ import annotations

from crossdiff.models.pair import ModelPair
from crossdiff.stages.study import Asked, AskedComparison


def three_models(experiment: Asked, study: str) -> AskedComparison:
    """The comparison of the experiment; refused where only one pair was given."""
    if experiment.comparison is None:
        given = experiment.pairs[0].name
        raise ValueError(
            f"study {study} needs three models (two pairs that share their base), and model_pair={given} has "
            "two; give comparison=it_vs_simpo (or toy_it_vs_simpo) instead of model_pair"
        )
    return experiment.comparison


def direct_pair(comparison: AskedComparison) -> ModelPair:
    """The two tuned models against each other, through the reference pair's template."""
    reference, treatment = comparison.reference, comparison.treatment
    return ModelPair(
        name=f"{reference.tuned.name}_{treatment.tuned.name}",
        base=reference.tuned,
        tuned=treatment.tuned,
        template=reference.template_model,
    )
