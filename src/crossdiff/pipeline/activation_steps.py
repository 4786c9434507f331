"""The steps that make activations: harvests, and the blends that they need."""

from __future__ import annotations

from collections.abc import Mapping

from crossdiff.config import Experiment
from crossdiff.data.settings import ImportedSource
from crossdiff.models.pair import ModelSettings, check_layers, fingerprint
from crossdiff.pipeline import cost
from crossdiff.pipeline.imported_steps import imported_harvest
from crossdiff.pipeline.steps import Step
from crossdiff.stages.blend import BlendInputs
from crossdiff.stages.harvest import HarvestInputs


def harvest_step(
    experiment: Experiment,
    model: ModelSettings,
    parents: Mapping[str, Step],
    *,
    n_tokens: int | None,
) -> Step:
    """The `harvest` step of one model at the experiment's layer, from the model or from files."""
    shape = cost.model_shape(model, experiment.organism)
    if shape is not None:
        check_layers(model, (experiment.layer,), shape.n_blocks)
    if isinstance(experiment.source, ImportedSource):
        return imported_harvest(experiment, experiment.source, model, parents["tokens"])
    inputs = HarvestInputs(
        model=model,
        fingerprint=fingerprint(model),
        layers=(experiment.layer,),
        source=experiment.source,
    )
    size = cost.harvest_cost(
        shape,
        layer=experiment.layer,
        n_tokens=n_tokens,
        bytes_per_value=cost.bytes_per_value(model, experiment.source),
    )
    return Step("harvest", model.name, inputs, parents, size)


def blend_step(experiment: Experiment, model: ModelSettings, organism: Mapping[str, Step]) -> dict[str, Step]:
    """The `blend` step of a model between two others, as a parent; empty for a model that exists."""
    if model.towards is None:
        return {}
    inputs = BlendInputs(model=model, fingerprint=fingerprint(model))
    size = cost.weights_cost(cost.model_shape(model, experiment.organism))
    return {"model": Step("blend", model.name, inputs, organism, size)}
