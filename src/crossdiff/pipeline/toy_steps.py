"""The steps of the toy triple alone: making it, and measuring the planted changes in its activations."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crossdiff.config import Comparison, Experiment
from crossdiff.data.corpus import OrganismSource, as_mixture
from crossdiff.models.pair import ORGANISM, ModelSettings
from crossdiff.pipeline import cost
from crossdiff.pipeline.steps import Step
from crossdiff.stages.organism import OrganismInputs
from crossdiff.stages.represented import ROLES, RepresentedInputs

MODELS = tuple(f"{ORGANISM}{name}" for name in ("pt", "it", "simpo"))
"""Models of the toy triple, in the order of the roles of stage `represented`."""


def organism_step(experiment: Experiment) -> dict[str, Step]:
    """The toy triple as a parent, when a model or the corpus comes from it."""
    models = [model for pair in experiment.pairs for model in (pair.base, pair.tuned)]
    sources = as_mixture(experiment.corpus).sources
    needed = any(model.path.startswith(ORGANISM) for model in models)
    if not needed and not any(isinstance(source, OrganismSource) for source in sources):
        return {}
    toy, seed = experiment.organism, experiment.seed
    inputs = OrganismInputs(toy=toy.model_copy(update={"seed": seed}), seed=seed)
    return {"organism": Step("organism", "toy", inputs, cost=cost.organism_cost(toy))}


def represented_step(
    experiment: Experiment,
    comparison: Comparison,
    parents: Mapping[str, Step],
    harvest: Callable[[ModelSettings], Step],
) -> dict[str, Step]:
    """The `represented` step as a parent; empty for models other than the toy triple.

    Empty for single crosscoders too, whose comparisons keep older keys. `parents`: the organism, the tokens.
    """
    models = (comparison.reference.base, comparison.reference.tuned, comparison.treatment.tuned)
    if comparison.n_seeds == 1 or tuple(model.path for model in models) != MODELS:
        return {}
    inputs = RepresentedInputs(layer=experiment.layer, mask=experiment.mask)
    harvests = {role: harvest(model) for role, model in zip(ROLES, models, strict=True)}
    return {"represented": Step("represented", "toy", inputs, {**parents, **harvests})}
