"""A given crosscoder in place of training, checked against a pair's activations.

The artifact has the form of `train` (`crosscoder/`, `training.json`).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossdiff.data.settings import MaskSettings
from crossdiff.io.crosscoders.find import find_checkpoint
from crossdiff.io.progress import show_notices
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import ImportedInputs, Resources, needs

if TYPE_CHECKING:
    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.data.paired_activations import PairedActivations

BATCH_SIZE = 4096
LEAST_FVE = 0.5
"""FVE below which a warning says that the crosscoder was trained on other activations."""
LARGEST_SHARE = 0.1
"""Share of latents active per token above which a warning doubts the scale."""


class ImportInputs(ImportedInputs):
    """Which crosscoder is read, and for which activations; the key holds its content, not its path."""

    RESOURCES: ClassVar[Resources] = needs(cpus=8, memory_gb=64, hours=4)
    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"path"})

    path: str
    """File, folder or hub id (`io/crosscoders/find.py`)."""
    fingerprint: str
    """`fingerprint(path)`."""
    scale: tuple[float, ...] | None = None
    """Factor per model on raw activations, base first, where the file has none; None estimates it."""
    layer: int
    mask: MaskSettings = MaskSettings()
    most_tokens: int = 262_144
    """Held-out tokens for FVE and L0: enough for three digits, and minutes on CPUs at paper scale."""


def fingerprint(path: str) -> str:
    """Hash of the checkpoint's format and files; paths and names do not count."""
    checkpoint = find_checkpoint(path)
    text = "\n".join([checkpoint.format, *sorted(checkpoint.sha256().values())])
    return hashlib.sha256(text.encode()).hexdigest()


def import_crosscoder(
    inputs: ImportInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write `crosscoder/`, and `training.json` with its figures on the pair's held-out tokens."""
    from crossdiff.io.tables import write_json
    from crossdiff.stages.activations import open_activations

    if fingerprint(inputs.path) != inputs.fingerprint:
        raise ValueError(f"{inputs.path} has changed since this step was planned; give the command again")
    activations = open_activations(parents, inputs.layer, inputs.mask, device=runtime.device)
    crosscoder = read_for_pair(inputs, d_model=activations.d_model, activations=activations)
    crosscoder = _centred(crosscoder, activations)
    figures = _figures(crosscoder.to(runtime.device), activations, at_most=inputs.most_tokens)
    record = crosscoder.metadata.pop("source")
    show_notices(f"import {inputs.path}", list(_notices(crosscoder.cpu(), record, figures, activations)))
    crosscoder.metadata = {
        "inputs": inputs.identity(),
        "parents": {role: path.name for role, path in parents.items()},
        "token_hash": activations.token_set.token_hash,
        "imported": {**record, "trained": crosscoder.metadata},
        "training": figures,
    }
    crosscoder.save(draft / "crosscoder")
    write_json(figures, draft / "training.json")
    return {"imported": record["format"], **figures}


def read_for_pair(
    inputs: ImportInputs, *, d_model: int, activations: PairedActivations | None = None
) -> Crosscoder:
    """The crosscoder; ValueError where it does not fit two models of this width at this layer.

    Without `activations` a scale that they would give is 1, which suffices for checks.
    """
    from crossdiff.io.crosscoders.read import read_crosscoder

    def mean_norms() -> list[float]:
        return [math.sqrt(d_model)] * 2 if activations is None else _mean_norms(activations)

    crosscoder = read_crosscoder(inputs.path, scale=inputs.scale, mean_norms=mean_norms)
    if (crosscoder.n_models, crosscoder.d_model) != (2, d_model):
        raise ValueError(
            f"{inputs.path} reads {crosscoder.n_models} models of width {crosscoder.d_model}, the pair has 2 "
            f"of width {d_model}; give a crosscoder of these two models"
        )
    if bool(crosscoder.threshold.isnan()):
        raise ValueError(
            f"{inputs.path} has no inference threshold (NaN), so no latent could be called "
            "active; set it where the crosscoder was trained, and save the crosscoder again"
        )
    check_layer(inputs.path, inputs.layer, crosscoder.metadata)
    return crosscoder


def _centred(crosscoder: Crosscoder, activations: PairedActivations) -> Crosscoder:
    """The crosscoder with weights for centred activations; codes and reconstructions stay the same.

    Latent scaling regresses normalised activations on codes without a constant, so the mean that most formats
    leave in the biases would enter every beta of activations and reconstruction.
    """
    from crossdiff.core.decoder_norms import renormalised
    from crossdiff.core.normaliser import Normaliser

    if bool(crosscoder.normaliser.mean.any()):
        return crosscoder
    normaliser = Normaliser(crosscoder.n_models, crosscoder.d_model)
    normaliser.scale.copy_(crosscoder.normaliser.scale)
    normaliser.mean.copy_(activations.statistics()[0])
    centred = renormalised(crosscoder, normaliser)
    centred.threshold.copy_(crosscoder.threshold)  # no decoder changed, so scaled codes are the same
    if centred.delta_ratio is not None and crosscoder.delta_ratio is not None:
        centred.delta_ratio.copy_(crosscoder.delta_ratio)
    centred.metadata = crosscoder.metadata
    return centred


def check_layer(path: str, asked: int, metadata: Mapping[str, Any]) -> None:
    """ValueError where the checkpoint's metadata names another layer."""
    source = metadata.get("source", {})
    points = source.get("hook_points") or source.get("hookpoints") or source.get("hook_point") or ()
    for point in [points] if isinstance(points, str) else points:
        hook = re.search(r"blocks\.(\d+)\.([\w.]*hook_\w+)", str(point))
        if hook is None:
            continue
        if hook[2] not in ("hook_resid_pre", "hook_resid_post"):
            raise ValueError(f"{path} reads {point}, not the residual stream after a block; give another")
        layer = int(hook[1]) - (hook[2] == "hook_resid_pre")
        if layer < 0:
            raise ValueError(
                f"{path} reads {point}, the embeddings, which are no block's output; give another"
            )
        if layer != asked:
            raise ValueError(
                f"{path} reads {point}, which is layer={layer} here (a block's output), and layer={asked} is "
                f"asked for; give layer={layer}"
            )
    trained = metadata.get("inputs", {}).get("layer", asked)
    if trained != asked:
        raise ValueError(f"{path} was trained on layer {trained}; give layer={trained}")


def _mean_norms(activations: PairedActivations) -> list[float]:
    """Mean activation norm per model over held-out rows (all rows where none is held out), in float64."""
    import torch

    split = "validation" if len(activations.rows("validation")) else "all"
    total, n_rows = torch.zeros(activations.n_models, dtype=torch.float64), 0
    for batch in activations.batches(split=split, batch_size=BATCH_SIZE):
        total += batch.activations_on("cpu").x.double().norm(dim=2).sum(dim=0)
        n_rows += len(batch.stored)
    return (total / n_rows).tolist()


def _figures(crosscoder: Crosscoder, activations: PairedActivations, *, at_most: int) -> dict[str, Any]:
    """The figures of a training's end, on `at_most` held-out tokens."""
    from crossdiff.training.evaluation import evaluate, held_out_batches, held_out_figures

    device = crosscoder.encoder.device
    batches = held_out_batches(activations, batch_size=BATCH_SIZE, device=device, at_most=at_most)
    evaluation = evaluate(crosscoder, batches, threshold=float(crosscoder.threshold), k=None)
    k = crosscoder.metadata.get("training", crosscoder.metadata).get("k")
    figures = held_out_figures(crosscoder, evaluation, k=k)
    return figures if evaluation.n_tokens else figures | {"never_fired_held_out": None}


def _notices(
    crosscoder: Crosscoder,
    record: Mapping[str, Any],
    figures: Mapping[str, Any],
    activations: PairedActivations,
) -> Iterator[str]:
    """The format, the figures on these activations, and warnings about scale and layer."""
    scale = ", ".join(f"{factor:.6g}" for factor in record["scale"])
    yield f"{record['format']} checkpoint ({record['conventions']}); scale {scale} ({record['scale_origin']})"
    if figures["n_held_out_tokens"] == 0:
        yield "no token is held out, so FVE and L0 on these activations are unknown"
        return
    fve, l0 = {model: figures[f"fve_{model}"] for model in ("base", "tuned")}, figures["l0"]
    listed = ", ".join(
        f"{model} {'unknown' if value is None else f'{value:.3f}'}" for model, value in fve.items()
    )
    yield f"on {figures['n_held_out_tokens']:,} held-out tokens: FVE {listed}; L0 {l0:.1f}"
    if any(value is None or value < LEAST_FVE for value in fve.values()):
        yield (
            f"WARNING: it explains less than {LEAST_FVE:g} of the variance, so these are hardly the "
            "activations that it was trained on: check the layer, the order of the models and the scale "
            f"({record['scale_origin']}) before believing any latent"
        )
    if l0 == 0 or l0 > LARGEST_SHARE * crosscoder.n_latents:
        yield f"WARNING: {l0:.1f} of {crosscoder.n_latents:,} latents are active per token: check the scale"
    yield from _other_scaling(crosscoder, activations)


def _other_scaling(crosscoder: Crosscoder, activations: PairedActivations) -> Iterator[str]:
    from crossdiff.stages.activations import SCALE_TOLERANCE, scale_spread

    _, spread = scale_spread(crosscoder, activations)
    if not spread <= SCALE_TOLERANCE:
        yield (
            f"it scales the two models {spread:.0%} differently from what equal variances of these "
            "activations would ask for; delta_norm compares norms in its scaling"
        )
