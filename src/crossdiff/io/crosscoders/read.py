"""Reading somebody's crosscoder, in whichever of the known formats it was published."""

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
"""What a code means in each format, for the record."""
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
    """The crosscoder at a file, a folder or a hub id; it encodes and decodes raw activations.

    `metadata["source"]` records what was read: `format`, `path`, `files` (name -> sha256), `conventions`,
    `scale` (per model) and `scale_origin` (`file`, `given` or `estimated`). `scale` is the factor per model,
    base first, where the file holds none; else `mean_norms` is asked for the mean norm of each model's raw
    activations, from which it is estimated as sqrt(d_model) / norm. A threshold that was never set is NaN.

    ValueError where nothing readable lies there, a file is damaged or holds NaN, or the scale is unknown.
    """
    found = find_checkpoint(path, revision=revision)
    crosscoder = _read(found, scale, mean_norms)
    _check_finite(found.weights, crosscoder)
    crosscoder.metadata["source"] = {**crosscoder.metadata.get("source", {}), **_record(path, found)}
    return crosscoder


def _read(found: Checkpoint, scale: Sequence[float] | None, mean_norms: MeanNorms | None) -> Crosscoder:
    if found.format in READERS:
        assert found.config is not None
        weights = READERS[found.format](found.weights, found.config)
        return build(found.weights, weights, scale=scale, mean_norms=mean_norms)
    own = found.format == "crossdiff"
    crosscoder = Crosscoder.load(found.weights.parent) if own else load_dictionary_learning(found.weights)
    held = crosscoder.normaliser.scale.tolist()
    if scale is not None:
        raise ValueError(
            f"{found.weights} holds the scale of its activations ({held}), so scale={list(scale)} would "
            "contradict it; leave the scale out"
        )
    crosscoder.metadata["source"] = {"scale": held, "scale_origin": "file"}
    return crosscoder


def _record(path: str | Path, found: Checkpoint) -> dict[str, Any]:
    return {
        "format": found.format,
        "path": str(path),
        "files": found.sha256(),
        "conventions": CONVENTIONS[found.format],
    }


def _check_finite(file: Path, crosscoder: Crosscoder) -> None:
    """ValueError for weights that are NaN or infinite; the threshold alone may be NaN, which means unset."""
    for name, tensor in crosscoder.state_dict().items():
        if name != "threshold" and not bool(torch.isfinite(tensor).all()):
            n_bad = int((~torch.isfinite(tensor)).sum())
            raise ValueError(
                f"{file}: {n_bad:,} of {tensor.numel():,} values of {name} are NaN or infinite; copy the "
                "file again, or ask its author for a checkpoint from before its training failed"
            )
