"""Steps of the toy triple: making it, further tunings, and measuring the planted changes in activations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from crossdiff.config import Comparison, Experiment
from crossdiff.data.corpus import OrganismSource, as_mixture
from crossdiff.models.pair import ORGANISM, ModelSettings
from crossdiff.pipeline import cost
from crossdiff.pipeline.steps import Step
from crossdiff.stages.organism import OrganismInputs
from crossdiff.stages.represented import ROLES, RepresentedInputs
from crossdiff.stages.tune_again import TuneAgainInputs

MODELS = tuple(f"{ORGANISM}{name}" for name in ("pt", "it", "simpo"))
"""Models of the toy triple, in the order of the roles of stage `represented`."""
TUNED_AGAIN = re.compile(rf"{ORGANISM}it_(\d+)")


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


def tune_again_step(
    experiment: Experiment, model: ModelSettings, organism: Mapping[str, Step]
) -> dict[str, Step]:
    """The step that makes organism:it_2, it_3, ..., as a parent; nothing for another model."""
    found = TUNED_AGAIN.fullmatch(model.path)
    if found is None:
        return {}
    toy = experiment.organism.model_copy(update={"seed": experiment.seed})
    inputs = TuneAgainInputs(toy=toy, number=int(found.group(1)))
    return {"model": Step("tune_again", model.name, inputs, organism, cost.organism_cost(toy))}


def planted_between(comparison: Comparison) -> bool:
    """Whether the toy's truth may lie between the two tuned models: none lies between a model and itself,
    nor between tunings of one kind."""
    tuned = comparison.reference.tuned, comparison.treatment.tuned
    return tuned[0] != tuned[1] and not any(TUNED_AGAIN.fullmatch(model.path) for model in tuned)


def represented_step(
    experiment: Experiment,
    comparison: Comparison,
    parents: Mapping[str, Step],
    harvest: Callable[[ModelSettings], Step],
) -> dict[str, Step]:
    """The `represented` step as a parent; empty for models other than the toy triple.

    Empty for single crosscoders too, whose comparisons keep older keys, and for diff_sae, which
    is compared by sign. `parents`: the organism, the tokens.
    """
    models = (comparison.reference.base, comparison.reference.tuned, comparison.treatment.tuned)
    by_sign = experiment.dictionary.architecture == "diff_sae"
    if by_sign or comparison.n_seeds == 1 or tuple(model.path for model in models) != MODELS:
        return {}
    inputs = RepresentedInputs(layer=experiment.layer, mask=experiment.mask)
    harvests = {role: harvest(model) for role, model in zip(ROLES, models, strict=True)}
    return {"represented": Step("represented", "toy", inputs, {**parents, **harvests})}
