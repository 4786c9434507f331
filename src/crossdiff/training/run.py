"""A whole training run: start or continue, train, set the threshold, measure."""

from __future__ import annotations

import math
import time
from typing import Any

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.sparsity import LargestK
from crossdiff.core.threshold import estimate_threshold
from crossdiff.training.evaluation import delta_norm_histogram, evaluate, held_out_batches, kind_shares
from crossdiff.training.initialise import initial_crosscoder
from crossdiff.training.module import CrosscoderModule
from crossdiff.training.optimise import model_names
from crossdiff.training.source import ActivationSource, check_enough
from crossdiff.training.trainer import RunFolder, TrainingRun, train

__all__ = ["RunFolder", "TrainingRun", "fit"]


def fit(run: TrainingRun, source: ActivationSource, folder: RunFolder) -> tuple[Crosscoder, dict[str, Any]]:
    """Train, or continue a run that was stopped, and return the crosscoder with its figures.

    Ranks that do not lead return no figures, and a crosscoder without a threshold.
    """
    settings = run.training
    folder.folder.mkdir(parents=True, exist_ok=True)
    check_enough(source, batch_size=settings.batch_size)
    crosscoder = initial_crosscoder(
        source, run.dictionary, sparsity=run.sparsity, training=settings, seed=run.seed
    )
    module = CrosscoderModule(crosscoder, source, sparsity=run.sparsity, training=settings, seed=run.seed)
    module.identity = run.identity()
    started = time.perf_counter()
    train(run, module, folder)
    seconds = time.perf_counter() - started
    if not run.leads:
        return crosscoder.cpu(), {}
    module.to(run.device)
    set_threshold(module)
    figures = final_figures(module)
    figures["train_seconds"] = seconds
    figures["tokens_per_s"] = (settings.total_steps() - module.start) * settings.batch_size / seconds
    return crosscoder.cpu(), figures


def set_threshold(module: CrosscoderModule) -> None:
    """Estimate the inference threshold on fresh training batches; 0 for methods without k."""
    sparsity, settings = module.sparsity, module.training_settings
    if not isinstance(sparsity, LargestK):
        module.crosscoder.threshold.fill_(0.0)
        return
    numbers = range(settings.total_steps(), settings.total_steps() + settings.threshold_batches)
    device = module.crosscoder.encoder.device
    batches = (
        module.source.training_batch(number, seed=module.seed, batch_size=settings.batch_size)
        for number in numbers
    )
    x = (batch.activations_on(device).x for batch in batches)
    module.crosscoder.threshold.fill_(estimate_threshold(module.crosscoder, x, k=sparsity.k))


def final_figures(module: CrosscoderModule) -> dict[str, Any]:
    """Figures over all held-out tokens with the final threshold (method.md section 2)."""
    crosscoder, settings = module.crosscoder, module.training_settings
    k = module.sparsity.k if isinstance(module.sparsity, LargestK) else None
    threshold = float(crosscoder.threshold)
    batches = held_out_batches(
        module.source, batch_size=settings.batch_size, device=crosscoder.encoder.device
    )
    found = evaluate(crosscoder, batches, threshold=threshold, k=k)
    names = model_names(crosscoder)
    figures = {
        **{f"fve_{name}": value for name, value in zip(names, found.fve, strict=True)},
        **{
            f"fve_without_first_{name}": value
            for name, value in zip(names, found.fve_without_first, strict=True)
        },
        **{f"fve_batch_{name}": value for name, value in zip(names, found.fve_batch, strict=True)},
        "l0": found.l0,
        "l0_threshold": found.l0,
        "l0_batch": found.l0_batch,
        "dead_share": module.dead_share(),
        **kind_shares(crosscoder),
        "delta_norm_histogram": delta_norm_histogram(crosscoder),
        "never_fired_held_out": found.never_fired,
        "n_held_out_tokens": found.n_tokens,
        "k": k,
        "n_latents": crosscoder.n_latents,
        "threshold": threshold,
        "n_steps": settings.total_steps(),
        "n_tokens": settings.total_steps() * settings.batch_size,
    }
    return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in figures.items()}
