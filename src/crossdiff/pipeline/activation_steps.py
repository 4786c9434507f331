"""The steps that make activations: harvests, blends, and imports of another tool's files (`source=files`)."""

from __future__ import annotations

from collections.abc import Mapping

from crossdiff.config import Experiment
from crossdiff.data.settings import ImportedSource
from crossdiff.models.pair import ModelSettings, check_layers, fingerprint
from crossdiff.pipeline import cost
from crossdiff.pipeline.alignment_checks import aligned_model
from crossdiff.pipeline.cost import Cost, model_shape
from crossdiff.pipeline.steps import Step
from crossdiff.stages.blend import BlendInputs
from crossdiff.stages.harvest import HarvestInputs
from crossdiff.stages.import_activations import (
    ImportHarvestInputs,
    ImportTokensInputs,
    array_content,
    rows_content,
    tokenizer_fingerprint,
)


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
        aligned=model == aligned_model(experiment.pairs[0]),
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


def imported_tokens(experiment: Experiment, source: ImportedSource, organism: Mapping[str, Step]) -> Step:
    """The `tokens` step of the rows; ValueError where arrays or offsets do not fit each other."""
    from crossdiff.data.imported.rows import open_vector, read_offsets, with_files_beside

    rows = with_files_beside(source)
    sizes = _sizes(experiment, rows)
    n_rows = next(iter(sizes.values()))[0]
    if rows.texts is not None and rows.ids is not None:
        raise ValueError(
            f"source.ids={rows.ids} and source.texts={rows.texts} both say what the tokens are; give one"
        )
    for role in ("ids", "kinds"):
        if (path := getattr(rows, role)) is not None:
            open_vector(path, role, n_rows)
    if rows.offsets is not None:
        read_offsets(rows.offsets, n_rows)
    _check_asked(experiment, rows, n_rows)
    tokenizer = None
    if rows.ids is not None or rows.texts is not None:
        tokenizer = _tokenizer(experiment, rows)
    inputs = ImportTokensInputs(
        rows=rows,
        n_rows=n_rows,
        content=rows_content(rows),
        tokenizer=tokenizer,
        tokenizer_fingerprint=None if tokenizer is None else tokenizer_fingerprint(tokenizer),
    )
    return Step("tokens", "files", inputs, organism, Cost(disk_gb=n_rows * 6 / 1e9))


def imported_harvest(
    experiment: Experiment, source: ImportedSource, model: ModelSettings, tokens: Step
) -> Step:
    """The `harvest` step of one model: its file, copied into shards."""
    from crossdiff.data.imported.layer import open_activations_of

    name = next(name for name, known in named_models(experiment).items() if known == model)
    path = source.path_of(name)
    inputs = ImportHarvestInputs(
        model=model,
        fingerprint=fingerprint(model),
        path=path,
        content=array_content(path),
        layer=experiment.layer,
    )
    array = open_activations_of(name, path)
    size = array.n_rows * array.shape[1] * min(array.dtype.itemsize, 4) / 1e9
    return Step("harvest", model.name, inputs, {"tokens": tokens}, Cost(disk_gb=size))


def named_models(experiment: Experiment) -> dict[str, ModelSettings]:
    """Name -> model: its name in its pair, or `<pair>.<name>` where two models have one name."""
    everyone = [(pair.name, model) for pair in experiment.pairs for model in (pair.base, pair.tuned)]
    models: dict[str, ModelSettings] = {}
    for pair, model in everyone:
        shared = any(other.name == model.name and other != model for _, other in everyone)
        if model not in models.values():
            models[f"{pair}.{model.name}" if shared else model.name] = model
    return models


def _sizes(experiment: Experiment, source: ImportedSource) -> dict[str, tuple[int, ...]]:
    """Model name -> (rows, d_model); ValueError where these differ, or d_model is not the model's."""
    from crossdiff.data.imported.layer import open_activations_of

    models = named_models(experiment)
    if unused := sorted(set(source.activations) - set(models)):
        raise ValueError(
            f"source.activations names {unused[0]}, which is no model here; those are {', '.join(models)}"
        )
    sizes = {name: open_activations_of(name, source.path_of(name)).shape for name in models}
    for place, what, rule in (
        (0, "rows", "row i has to be the same token in every model"),
        (1, "d_model", "the models of a pair need one width"),
    ):
        if len({shape[place] for shape in sizes.values()}) > 1:
            listed = ", ".join(f"{name} has {shape[place]:,}" for name, shape in sizes.items())
            raise ValueError(f"source.activations differ in {what}: {listed}; {rule}")
    for name, model in models.items():
        shape = model_shape(model, experiment.organism)
        if shape is not None and shape.d_model != sizes[name][1]:
            raise ValueError(
                f"source.activations of {name} ({source.path_of(name)}) are {sizes[name][1]} wide, and "
                f"{model.path} has d_model {shape.d_model}; give the residual stream of that model"
            )
    return sizes


def _check_asked(experiment: Experiment, rows: ImportedSource, n_rows: int) -> None:
    """ValueError where a setting needs what the files do not hold."""
    mask, batch_size = experiment.mask, experiment.training.batch_size
    if n_rows <= batch_size and any(pair.crosscoder is None for pair in experiment.pairs):
        raise ValueError(
            f"{n_rows:,} rows cannot fill one batch of training.batch_size={batch_size:,}; lower it"
        )
    if mask.skip_first and rows.offsets is None and rows.texts is None:
        raise ValueError(
            f"mask.skip_first={mask.skip_first} drops the first tokens of documents, and no offsets say "
            "where they begin; give source.offsets, or leave it out"
        )
    if mask.mask == "no_template" and rows.kinds is None and rows.texts is None:
        raise ValueError(
            "mask.mask=no_template drops tokens of the chat template, and nothing says which these are; give "
            "source.kinds, or leave it out"
        )


def check_study(experiment: Experiment) -> None:
    """ValueError where a study, which runs the models itself, is combined with `source=files`."""
    if experiment.study is not None and isinstance(experiment.source, ImportedSource):
        raise ValueError(
            f"the study {type(experiment.study).__name__} runs models itself, so it cannot use source=files; "
            "leave source= out, or the study"
        )


def _tokenizer(experiment: Experiment, rows: ImportedSource) -> ModelSettings:
    if rows.tokenizer is None:
        return experiment.pairs[0].template_model
    return ModelSettings(name="tokenizer", path=rows.tokenizer)
