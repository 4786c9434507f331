"""What a pair of two families (`model_pair.alignment=characters`) can be asked for, and what is refused.

Their residual streams have no common axes. So nothing may put a direction of one model into the other: not
latent scaling, which takes one model's direction as the probe in the other, and no cosine between decoders.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from crossdiff.config import Experiment
from crossdiff.data.settings import CacheSource
from crossdiff.models.config_file import changes_letters
from crossdiff.models.pair import ModelPair, ModelSettings, fingerprint

CROSSCODER_EXPORTS = ("checkpoint", "neuronpedia")
ARCHITECTURES = ("standard", "dedicated_feature")
"""Architectures in which no direction is common to both models."""


def aligned_model(pair: ModelPair) -> ModelSettings | None:
    """The model whose tokens are not shown (of two families, that without the template); else None."""
    other = pair.tuned if _same_tokenizer(pair.template_model, pair.base) else pair.base
    return other if pair.alignment == "characters" else None


def _same_tokenizer(one: ModelSettings, other: ModelSettings) -> bool:
    names = ("path", "revision", "adapter", "towards")
    return all(getattr(one, name) == getattr(other, name) for name in names)


def tokenizers_of(pair: ModelPair) -> dict[str, Any]:
    """The inputs of step tokens that name the pair's one or two tokenizers."""
    shown, other = pair.template_model, aligned_model(pair)
    return {
        "tokenizer": shown,
        "tokenizer_fingerprint": _fingerprint(shown),
        "aligned": other,
        "aligned_fingerprint": None if other is None else _fingerprint(other),
    }


def _fingerprint(model: ModelSettings) -> str:
    """The suffix renews only token sets whose letters a template changes: older ones count as template."""
    return fingerprint(model) + "+letters" * changes_letters(model)


def check_alignment(experiment: Experiment) -> None:
    """ValueError where a pair of two families is asked for what it cannot answer; says what to set."""
    pair = next((pair for pair in experiment.pairs if pair.alignment == "characters"), None)
    if pair is None:
        return
    problem = next(_problems(experiment, pair), None)
    if problem is not None:
        raise ValueError(f"{pair.name} has alignment=characters (two families): {problem}")


def _problems(experiment: Experiment, pair: ModelPair) -> Iterator[str]:
    if experiment.study is not None:
        yield f"the study {type(experiment.study).__name__} compares directions; leave the study out"
    if experiment.comparison is not None:
        yield "both pairs of a comparison need one set of aligned tokens, which is not built; give model_pair"
    if experiment.action == "ask":
        yield "action=ask reads texts with one tokenizer for both models; look at the report (action=render)"
    if experiment.action == "export" and experiment.export.what in CROSSCODER_EXPORTS:
        yield (
            f"export.what={experiment.export.what} would pass on the columns beyond a narrower model as "
            "directions of it; choose figures, tables or annotations"
        )
    if not any(_same_tokenizer(pair.template_model, model) for model in (pair.base, pair.tuned)):
        yield f"template={pair.template_model.path} is neither model; leave it out, or name one of the two"
    if not isinstance(experiment.source, CacheSource):
        yield "only stored activations of a tokenised corpus are aligned; give source=cache"
    if experiment.selection.method != "norm":
        yield (
            f"selection.method={experiment.selection.method} asks whether one model's direction occurs in "
            "the other's activations, and two families have no common directions; give selection=norm, which "
            "calls by decoder norms alone"
        )
    yield from _problems_of_training(experiment, pair)


def _problems_of_training(experiment: Experiment, pair: ModelPair) -> Iterator[str]:
    dictionary, training = experiment.dictionary, experiment.training
    if pair.crosscoder is not None or training.start is not None:
        yield "a crosscoder from a file says nothing of the columns beyond a narrower model; train one"
    if dictionary.architecture not in ARCHITECTURES:
        yield (
            f"dictionary.architecture={dictionary.architecture} has directions or differences common to both "
            f"models; choose one of {', '.join(ARCHITECTURES)}"
        )
    if training.loss_mix:
        yield "training.loss_mix multiplies the errors of both models with each other; give 0"
    if training.optimizer == "adam_8bit":
        yield "training.optimizer=adam_8bit may move weights that have to stay zero; choose adam"
    if training.shards > 1:
        yield f"training.shards={training.shards} does not know narrower models; give 1"
    if experiment.documents.n_drifted:
        yield "documents.n_drifted ranks by latent scaling, which is unknown; give 0"
