"""A whole training run: the crosscoder at step 0 or a checkpoint, the steps, the threshold, the figures."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from crossdiff.core.codes import Activations, Bias
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import renormalised
from crossdiff.core.delta import partitions, set_ratio_
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser, geometric_median
from crossdiff.core.shard import CrosscoderShard, Shard
from crossdiff.core.sparsity import JumpReLU, LargestK, Sparsity
from crossdiff.core.threshold import estimate_threshold
from crossdiff.io.crosscoders.read import read_crosscoder
from crossdiff.training.evaluation import (
    evaluate,
    held_out_batches,
    held_out_figures,
    model_names,
    without_nan,
)
from crossdiff.training.module import CrosscoderModule
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import ActivationSource, check_enough, check_finite
from crossdiff.training.trainer import RunFolder, TrainingRun, train

__all__ = ["RunFolder", "TrainingRun", "fit"]


def fit(run: TrainingRun, source: ActivationSource, folder: RunFolder) -> tuple[Crosscoder, dict[str, Any]]:
    """Train, or continue a run that was stopped, and return the crosscoder with its figures.

    Ranks that do not measure return no figures, and a crosscoder without a threshold.
    """
    settings = run.training
    folder.folder.mkdir(parents=True, exist_ok=True)
    check_enough(source, batch_size=settings.batch_size)
    crosscoder = initial_crosscoder(
        source, run.dictionary, sparsity=run.sparsity, training=settings, seed=run.seed, shard=run.shard
    )
    module = CrosscoderModule(crosscoder, source, sparsity=run.sparsity, training=settings, seed=run.seed)
    module.identity = run.identity()
    started = time.perf_counter()
    train(run, module, folder)
    seconds = time.perf_counter() - started
    if not run.measures:
        return crosscoder.cpu(), {}
    module.to(run.device)
    set_threshold(module)
    figures = final_figures(module)
    figures["train_seconds"] = seconds
    figures["tokens_per_s"] = (settings.total_steps() - module.start) * settings.batch_size / seconds
    return crosscoder.cpu(), figures


def set_threshold(module: CrosscoderModule) -> None:
    """Estimate the inference threshold on fresh training batches; 0 for methods without k."""
    sparsity = module.sparsity
    if not isinstance(sparsity, LargestK):
        module.crosscoder.threshold.fill_(0.0)
        return
    crosscoder = module.crosscoder
    if crosscoder.delta_ratio is None:
        crosscoder.threshold.fill_(estimate_threshold(crosscoder, _fresh(module), k=sparsity.k))
        return
    crosscoder.delta_ratio.fill_(1)
    of_delta, of_rest = (
        estimate_threshold(crosscoder, _fresh(module), k=group.k, latents=group.latents)
        for group in partitions(crosscoder.settings, k=sparsity.k)
    )
    crosscoder.threshold.fill_(of_delta if math.isnan(of_rest) else of_rest)
    set_ratio_(crosscoder, of_delta, of_rest)


def _fresh(module: CrosscoderModule) -> Iterator[Activations]:
    """The training batches that would come after the last step."""
    settings, device = module.training_settings, module.crosscoder.encoder.device
    order = settings.order(module.seed)
    for number in range(settings.total_steps(), settings.total_steps() + settings.threshold_batches):
        batch = module.source.training_batch(number, seed=order, batch_size=settings.batch_size)
        yield batch.activations_on(device).x


def final_figures(module: CrosscoderModule) -> dict[str, Any]:
    """Figures over all held-out tokens with the final threshold (method.md section 2)."""
    crosscoder, settings = module.crosscoder, module.training_settings
    k = module.sparsity.k if isinstance(module.sparsity, LargestK) else None
    batches = held_out_batches(
        module.source, batch_size=settings.batch_size, device=crosscoder.encoder.device
    )
    measured = evaluate(crosscoder, batches, threshold=float(crosscoder.threshold), k=k)
    by_batch = zip(model_names(crosscoder), measured.fve_batch, strict=True)
    of_training = {
        **{f"fve_batch_{name}": value for name, value in by_batch},
        "l0_batch": measured.l0_batch,
        "dead_share": module.dead_share(),
        "n_steps": settings.total_steps(),
        "n_tokens": settings.total_steps() * settings.batch_size,
    }
    return held_out_figures(crosscoder, measured, k=k) | without_nan(of_training)


STATISTICS_BATCHES = 50


def initial_crosscoder(
    source: ActivationSource,
    dictionary: DictionarySettings,
    *,
    sparsity: Sparsity,
    training: TrainingSettings,
    seed: int,
    shard: Shard | None = None,
) -> Crosscoder:
    """A fresh crosscoder, or that of `training.start`; a pure function of rows, settings and seed.

    With a `shard` only the rows of this block of latents, which are those that the whole one would have.
    """
    differs = dictionary.architecture == "diff_sae"
    _check_pair(dictionary, source)
    order = training.order(seed)
    first = source.training_batch(0, seed=order, batch_size=training.batch_size)
    check_finite(first, source)
    kind = Crosscoder if shard is None else partial(CrosscoderShard, shard=shard)
    crosscoder = kind(dictionary, n_models=1 if differs else source.n_models, d_model=source.d_model)
    mean, variance = _difference_statistics(source, training, order) if differs else source.statistics()
    target = training.target_rms or math.sqrt(source.d_model)
    normaliser = Normaliser.from_statistics(mean.double(), variance.double(), target_rms=target)
    if training.start is not None:
        shape = {"n_models": crosscoder.n_models, "d_model": crosscoder.d_model}
        start = read_start(training.start, dictionary, sparsity, **shape)
        whole = renormalised(start, normaliser, dictionary)
        return whole if shard is None else CrosscoderShard.of(whole, shard)
    crosscoder.normaliser = normaliser
    if isinstance(sparsity, JumpReLU):
        crosscoder.add_gate_(sparsity.initial_gate)
    xn = crosscoder.normaliser.normalise(crosscoder.inputs(first.x))
    generator = torch.Generator().manual_seed(seed)
    crosscoder.initialise_(generator, decoder_bias=_decoder_bias(xn, training))
    narrow_(crosscoder, getattr(source, "widths", ()))
    return crosscoder


@torch.no_grad()
def narrow_(crosscoder: Crosscoder, widths: Sequence[int]) -> None:
    """Set directions to zero beyond every model's width (two families); norms stay, encoder = decoder.

    The activations are zero there, so that all gradients are, and the weights never leave zero. Without the
    norms `delta_norm` would start off one half.
    """
    for model, width in enumerate(widths):
        if width < crosscoder.d_model:
            directions = crosscoder.decoder[:, model]
            norm = directions.norm(dim=1, keepdim=True)
            directions[:, width:] = 0
            left = directions.norm(dim=1, keepdim=True)
            directions *= torch.where(left > 0, norm / left, 0)
            crosscoder.encoder[:, model] = directions


def _check_pair(dictionary: DictionarySettings, source: ActivationSource) -> None:
    """ValueError where an architecture is about the difference of two models and there are not two."""
    asks = {"diff_sae": "reads the difference", "delta": "has a loss on the difference"}
    if dictionary.architecture in asks and source.n_models != 2:
        raise ValueError(
            f"dictionary.architecture={dictionary.architecture} {asks[dictionary.architecture]} of 2 models, "
            f"this source has {source.n_models}; choose architecture=standard"
        )


def _decoder_bias(xn: Activations, training: TrainingSettings) -> Bias:
    match training.decoder_bias:
        case "zero":
            return torch.zeros_like(xn[0])
        case "mean":
            return xn.mean(dim=0)
        case "geometric_median":
            return torch.stack([geometric_median(points) for points in xn.unbind(dim=1)])


def _difference_statistics(
    source: ActivationSource, training: TrainingSettings, order: int
) -> tuple[Tensor, Tensor]:
    """Float64 mean and variance of `x_tuned - x_base` over the first training batches."""
    total = torch.zeros(1, source.d_model, dtype=torch.float64)
    squares, n = torch.zeros_like(total), 0
    for number in range(min(STATISTICS_BATCHES, training.total_steps())):
        x = source.training_batch(number, seed=order, batch_size=training.batch_size).x.double()
        difference = x[:, 1:2] - x[:, 0:1]
        total += difference.sum(dim=0)
        squares += difference.square().sum(dim=0)
        n += x.shape[0]
    mean = total / n
    return mean, squares / n - mean.square()


def read_start(
    path: str, dictionary: DictionarySettings, sparsity: Sparsity, *, n_models: int, d_model: int
) -> Crosscoder:
    """The crosscoder at `path`, which must be of this shape and kind; ValueError says what to set."""
    start = read_crosscoder(path)
    if (start.n_models, start.d_model) != (n_models, d_model):
        raise ValueError(
            f"training.start={path} reads {start.n_models} models of width {start.d_model}, these are "
            f"{n_models} of width {d_model}; give a crosscoder of such models"
        )
    same = ["n_latents", "code_norm", "architecture"]
    same += {"dedicated_feature": ["dedicated_share"], "delta": ["delta_share"]}.get(
        dictionary.architecture, []
    )
    for name in same:
        theirs, ours = getattr(start.settings, name), getattr(dictionary, name)
        if theirs != ours:
            raise ValueError(
                f"training.start={path} has {name}={theirs}, the run asks for {ours}; "
                f"give dictionary.{name}={theirs}"
            )
    if dictionary.architecture in ("diff_sae", "designated_shared", "dedicated"):
        raise ValueError(
            f"training.start cannot go on with architecture={dictionary.architecture}: a diff_sae is no "
            "crosscoder, and directions that two models share would differ after rescaling; leave it out"
        )
    if start.log_gate is not None and not isinstance(sparsity, JumpReLU):
        raise ValueError(f"training.start={path} has JumpReLU gates; give sparsity=jumprelu")
    if start.log_gate is None and isinstance(sparsity, JumpReLU):
        start.add_gate_(sparsity.initial_gate)
    return start
