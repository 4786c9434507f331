"""The `train` step of a pair: training, or reading the crosscoder that the pair names."""

from __future__ import annotations

from collections.abc import Mapping

from crossdiff.config import Experiment
from crossdiff.io.artifacts import read_manifest
from crossdiff.models.pair import ModelPair
from crossdiff.pipeline import cost
from crossdiff.pipeline.steps import Step
from crossdiff.stages.import_crosscoder import ImportInputs, fingerprint, read_for_pair
from crossdiff.stages.study import Study, train_inputs


def crosscoder_step(
    experiment: Experiment, pair: ModelPair, activations: Mapping[str, Step], *, training: cost.Cost
) -> Step:
    """The `train` step of a pair; ValueError where a crosscoder that is read does not fit the pair."""
    if pair.crosscoder is None:
        if pair.crosscoder_scale is not None:
            raise ValueError(
                f"crosscoder_scale={list(pair.crosscoder_scale)} belongs to a crosscoder that is read; name "
                "it with crosscoder=..., or leave the scale out"
            )
        seed = experiment.seed if pair.seed is None else pair.seed
        step = Step("train", pair.name, train_inputs(experiment, seed=seed), activations, training)
        if not step.is_finished(experiment.store):
            _check_start(experiment, pair)
        return step
    if pair.seed is not None:
        raise ValueError(
            f"{pair.name} reads its crosscoder from {pair.crosscoder}, so it cannot be one of several that "
            "differ in their seed; give comparison.n_seeds=1 and no seed of the pair, or train them"
        )
    if experiment.dictionary.architecture == "diff_sae":
        raise ValueError(
            f"dictionary.architecture=diff_sae compares latents by sign, and {pair.crosscoder} of "
            f"{pair.name} has a direction per model; leave the architecture out, or train it"
        )
    inputs = ImportInputs(
        path=pair.crosscoder,
        fingerprint=fingerprint(pair.crosscoder),
        scale=pair.crosscoder_scale,
        layer=experiment.layer,
        mask=experiment.mask,
    )
    step = Step("train", pair.name, inputs, activations)
    shape = cost.model_shape(pair.base, experiment.organism)
    if shape is not None and not step.is_finished(experiment.store):
        _n_latents(inputs, shape.d_model)
    return step


def n_latents(step: Step, experiment: Experiment) -> int:
    """Latents of the crosscoder that a `train` step makes, for estimates of cost."""
    if not isinstance(step.inputs, ImportInputs):
        return experiment.dictionary.n_latents
    if step.is_finished(experiment.store):
        return int(read_manifest(step.folder(experiment.store))["counts"]["n_latents"])
    shape = cost.model_shape(experiment.pairs[0].base, experiment.organism)
    return experiment.dictionary.n_latents if shape is None else _n_latents(step.inputs, shape.d_model)


def _check_start(experiment: Experiment, pair: ModelPair) -> None:
    """ValueError where this training cannot start from the crosscoder `training.start`."""
    shape, path = cost.model_shape(pair.base, experiment.organism), experiment.training.start
    if path is None or shape is None:
        return
    from crossdiff.training.run import read_start

    read_start(path, experiment.dictionary, experiment.sparsity, n_models=2, d_model=shape.d_model)


_COUNTED: dict[tuple[str, int], int] = {}
"""Latents of the crosscoders that this process has read, by (identity of the inputs, d_model)."""


def _n_latents(inputs: ImportInputs, d_model: int) -> int:
    """Latents of the crosscoder; ValueError where it does not fit the pair."""
    known = (str(inputs.identity()), d_model)
    if known not in _COUNTED:
        _COUNTED[known] = read_for_pair(inputs, d_model=d_model).n_latents
    return _COUNTED[known]


def check_crosscoders(experiment: Experiment) -> None:
    """ValueError where one crosscoder is given for two pairs, or a study would not use it."""
    if experiment.comparison is not None and experiment.crosscoder is not None:
        raise ValueError(
            f"crosscoder={experiment.crosscoder} is one crosscoder and a comparison has two pairs; give "
            "comparison.reference.crosscoder=... comparison.treatment.crosscoder=... comparison.n_seeds=1"
        )
    named = [pair for pair in experiment.pairs if pair.crosscoder is not None]
    study: Study | None = experiment.study
    if named and study is not None and not study.READS_CROSSCODERS:
        raise ValueError(
            f"the study {type(study).__name__} trains its crosscoders and cannot use "
            f"{named[0].crosscoder} of {named[0].name}; leave it out (experiment=steering and causal can "
            "read one)"
        )
