"""Reading a published crosscoder in any of the known formats."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.crosscoders import crosscode, neelnanda, openmoss, saelens
from crossdiff.io.crosscoders.find import Checkpoint, find_checkpoint
from crossdiff.io.crosscoders.weights import MeanNorms, build
from crossdiff.io.interop import load_dictionary_learning

CONVENTIONS = {
    "crossdiff": "our own: normaliser, code norm and inference threshold as saved",
    "dictionary_learning": "code norm, per-model scale and threshold of the state dict",
    "neelnanda": "ReLU codes of x_m * s_m, threshold 0, code norm sum, models in the order base, tuned",
    "crosscode": "ReLU or JumpReLU codes, code norm sum, models in the order of the file",
    "saelens": "JumpReLU codes of [x_base; x_tuned] with one threshold per latent, as we export them",
    "openmoss": "ReLU codes with summed encoder biases, code norm sum, models in the order of hook_points",
}
"""Meaning of a code in each format, for the record."""
READERS = {
    "neelnanda": neelnanda.read,
    "crosscode": crosscode.read,
    "openmoss": openmoss.read,
    "saelens": saelens.read,
}


def read_crosscoder(
    path: str | Path,
    *,
    scale: Sequence[float] | None = None,
    revision: str | None = None,
    mean_norms: MeanNorms | None = None,
) -> Crosscoder:
    """The crosscoder at a file, folder or hub id, for raw activations.

    `metadata["source"]` records `format`, `path`, `files` (name -> sha256), `conventions`,
    `scale` (per model) and `scale_origin` (`file`, `given` or `estimated`). `scale` is the factor per model,
    base first, for a file without one; without `scale` it is estimated as sqrt(d_model) / norm, where
    `mean_norms` gives the mean norm of each model's raw activations. An unset threshold is NaN.

    ValueError where nothing can be read, a file is damaged or has NaN, or the scale is unknown.
    """
    checkpoint = find_checkpoint(path, revision=revision)
    crosscoder = _read(checkpoint, scale, mean_norms)
    _check_finite(checkpoint.weights, crosscoder)
    crosscoder.metadata["source"] = {**crosscoder.metadata.get("source", {}), **_record(path, checkpoint)}
    return crosscoder


def _read(checkpoint: Checkpoint, scale: Sequence[float] | None, mean_norms: MeanNorms | None) -> Crosscoder:
    if checkpoint.format in READERS:
        assert checkpoint.config is not None
        weights = READERS[checkpoint.format](checkpoint.weights, checkpoint.config)
        return build(checkpoint.weights, weights, scale=scale, mean_norms=mean_norms)
    is_ours = checkpoint.format == "crossdiff"
    load = Crosscoder.load if is_ours else load_dictionary_learning
    crosscoder = load(checkpoint.weights.parent if is_ours else checkpoint.weights)
    stored = crosscoder.normaliser.scale.tolist()
    if scale is not None:
        raise ValueError(
            f"{checkpoint.weights} has the scale of its activations ({stored}), so scale={list(scale)} would "
            "contradict it; leave the scale out"
        )
    crosscoder.metadata["source"] = {"scale": stored, "scale_origin": "file"}
    return crosscoder


def _record(path: str | Path, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "format": checkpoint.format,
        "path": str(path),
        "files": checkpoint.sha256(),
        "conventions": CONVENTIONS[checkpoint.format],
    }


def _check_finite(file: Path, crosscoder: Crosscoder) -> None:
    """ValueError for weights that are NaN or infinite; only the threshold may be NaN (unset)."""
    for name, tensor in crosscoder.state_dict().items():
        if name != "threshold" and not bool(torch.isfinite(tensor).all()):
            n_bad = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{file}: {n_bad:,} of {tensor.numel():,} values of {name} are NaN or infinite; copy the "
                "file again, or ask its author for a checkpoint from before its training failed"
            )
