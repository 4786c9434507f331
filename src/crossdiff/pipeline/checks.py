"""Checks of a plan, before any model runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from crossdiff.annotation.api.secret import api_key
from crossdiff.annotation.settings import Claude
from crossdiff.config import Experiment
from crossdiff.data.corpus import DEFAULT_CONTEXT, CorpusSettings, FilesSource, as_mixture, expand
from crossdiff.data.settings import ImportedSource
from crossdiff.models.config_file import adapter_base, check_adapter
from crossdiff.models.pair import ModelPair, ModelSettings, fingerprint
from crossdiff.organisms.settings import ToySettings
from crossdiff.pipeline.cost import model_shape
from crossdiff.pipeline.steps import Step
from crossdiff.pipeline.weight_checks import head_notices
from crossdiff.training.settings import TrainingSettings


def check_pair(pair: ModelPair, corpus: CorpusSettings, toy: ToySettings) -> None:
    """ValueError when the models cannot read the corpus, or cannot be compared with each other."""
    widths = {}
    for model in (pair.base, pair.tuned):
        _refuse_adapter_alone(model)
        if model.adapter is not None:
            check_adapter(model.adapter)
        shape = model_shape(model, toy)
        if shape is None:
            continue
        widths[model.path] = shape.d_model
        _check_context(model, shape.n_positions, as_mixture(corpus).context)
    if len(set(widths.values())) > 1 and pair.alignment == "tokens":
        listed = ", ".join(f"{path} has {width}" for path, width in widths.items())
        raise ValueError(
            f"the models of a pair need one d_model: {listed}; choose models of one family, or give "
            "model_pair.alignment=characters (two families: docs/inputs.md)"
        )


def fitted(experiment: Experiment) -> Experiment:
    """The experiment; where no `corpus.context` was given, with one that all its models can read."""
    fewest = min(_positions(experiment).values(), default=DEFAULT_CONTEXT)
    if experiment.corpus.has_context or fewest >= experiment.corpus.context:
        return experiment
    corpus = experiment.corpus.model_copy(update={"context": fewest})
    return experiment.model_copy(update={"corpus": corpus})


def _positions(experiment: Experiment) -> dict[str, int]:
    """Model path -> its number of positions, where known."""
    shapes = {
        model.path: model_shape(model, experiment.organism)
        for pair in experiment.pairs
        for model in (pair.base, pair.tuned)
    }
    return {path: shape.n_positions for path, shape in shapes.items() if shape and shape.n_positions}


def notices(experiment: Experiment) -> Iterator[str]:
    """Warnings for the reader of the results that are known before any step runs."""
    context = fitted(experiment).corpus.context
    if context < experiment.corpus.context and not isinstance(experiment.source, ImportedSource):
        positions = _positions(experiment)
        path = min(positions, key=lambda name: positions[name])
        yield f"corpus.context={context}: {path} has no more positions, and longer documents are cut there"
    bases = {fingerprint(pair.base): pair.base.path for pair in experiment.pairs}
    if len(bases) > 1:
        yield (
            f"the pairs have different base models ({' and '.join(bases.values())}), so that changes between "
            "them may come from the bases and not from the fine-tuning; compare pairs that share one base"
        )
    tuned = {fingerprint(pair.tuned): pair.tuned.path for pair in experiment.pairs}
    if len(experiment.pairs) > len(tuned) and len(bases) == 1:
        yield (
            f"both pairs compare the same two models (tuned: {' and '.join(tuned.values())}), so that no "
            "change between them comes from fine-tuning; name another tuned model"
        )
    if isinstance(experiment.source, ImportedSource):
        yield "activations are read from files: corpus decides nothing, and no model is run for them"
    for pair in experiment.pairs:
        if pair.crosscoder is not None:
            yield (
                f"{pair.name}: the crosscoder is read from {pair.crosscoder}; dictionary, sparsity and "
                "training decide nothing for it"
            )
        yield from head_notices(pair)


def check_two_models(pair: ModelPair, activations: Mapping[str, Step]) -> None:
    """ValueError when base and tuned are the same weights, read in the same way (studies may ask for it)."""
    if activations["harvest_base"].key == activations["harvest_tuned"].key:
        raise ValueError(
            f"base ({pair.base.path}) and tuned ({pair.tuned.path}) of {pair.name} are one model, so no "
            "latent can belong to one of them; give two models, or experiment=self_diff, which asks how many "
            "latents of a model against itself are called exclusive"
        )


FIRST_FILES = 64
"""Local files whose first record is read while planning."""


@lru_cache(maxsize=64)
def check_first_records(corpus: CorpusSettings, _content: str) -> None:
    """ValueError when the first record of a local file has no text, as where its column has another name.

    With `n_tokens` of every source the first file with a record alone: the others may never be read.
    `_content` is the corpus' fingerprint, as every crosscoder and run of a study asks again.
    """
    from crossdiff.data.records import records
    from crossdiff.data.row_content import BadRecord

    mixture = as_mixture(corpus)
    if mixture.skip_bad:
        return
    for source in (source for source in mixture.sources if isinstance(source, FilesSource)):
        for file in expand(source.paths)[:FIRST_FILES]:
            alone = source.model_copy(update={"paths": (str(file),)})
            first = next(records(alone, organism=None), None)
            if isinstance(first, BadRecord):
                raise first
            if first is not None and mixture.n_tokens is not None:
                break


def check_length(corpus: CorpusSettings, training: TrainingSettings) -> None:
    """ValueError when `corpus.n_tokens` cannot fill one training batch."""
    mixture = as_mixture(corpus)
    if mixture.n_tokens is not None and mixture.n_tokens + mixture.context <= training.batch_size:
        raise ValueError(
            f"corpus.n_tokens={mixture.n_tokens:,} cannot fill one batch of training.batch_size="
            f"{training.batch_size:,} tokens; raise corpus.n_tokens or lower the batch size"
        )


def refuse_missing_keys(steps: Sequence[Step], store: Path) -> None:
    """ValueError when an unfinished step needs an API whose key is not set."""
    for step in steps:
        annotator = getattr(step.inputs, "annotator", None)
        if isinstance(annotator, Claude) and not step.is_finished(store):
            api_key(annotator)


def _refuse_adapter_alone(model: ModelSettings) -> None:
    base = adapter_base(model.path)
    if base is None:
        return
    way_out = f"give both: model_pair.tuned={base} model_pair.tuned_adapter={model.path}"
    if model.name == "base":
        way_out = f"merge it into its model ({base}; merge_and_unload, save_pretrained) and give that folder"
    raise ValueError(f"{model.path} holds a PEFT adapter and no model; {way_out}")


def _check_context(model: ModelSettings, n_positions: int | None, context: int) -> None:
    if n_positions is not None and context > n_positions:
        raise ValueError(
            f"corpus.context={context} is more than the {n_positions} positions of {model.path}, beyond "
            f"which it was not trained; give corpus.context={n_positions} (longer documents are cut there)"
        )
