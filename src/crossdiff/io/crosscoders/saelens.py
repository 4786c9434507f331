"""A crosscoder as one JumpReLU SAE of SAELens on the concatenation [x_base; x_tuned], exact up to rounding.

`cfg.json` + `sae_weights.safetensors`: `W_enc` [d_in, latent], `W_dec` [latent, d_in], `b_enc` and
`threshold` [latent], `b_dec` [d_in], with d_in = models * d_model. Mean and scale of the normaliser go into
weights and biases, the threshold of the scaled code becomes one per latent. The metadata's entry `crossdiff`
has what this loses, so that the crosscoder can be read again; SAEs without it are refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import renormalised
from crossdiff.core.files import follow_umask
from crossdiff.core.normaliser import Normaliser
from crossdiff.io.crosscoders.weights import Weights, read_object, read_state, shaped
from crossdiff.io.tables import write_json

WEIGHTS, CONFIG = "sae_weights.safetensors", "cfg.json"
NEVER = torch.finfo(torch.float32).max
"""Threshold that no code can pass."""


def write(crosscoder: Crosscoder, folder: Path, *, layer: int | None) -> None:
    """Write `cfg.json` and `sae_weights.safetensors`; ValueError for architecture=diff_sae."""
    if crosscoder.settings.architecture == "diff_sae":
        raise ValueError(
            "architecture=diff_sae reads the difference of the models, and a SAE on their concatenation does "
            "not; give export.format=crossdiff"
        )
    raw = renormalised(crosscoder, Normaliser(crosscoder.n_models, crosscoder.d_model))
    tensors = {
        "W_enc": raw.encoder.flatten(1).T,
        "b_enc": raw.encoder_bias,
        "W_dec": raw.decoder.flatten(1),
        "b_dec": raw.decoder_bias.flatten(),
        "threshold": _thresholds(crosscoder),
    }
    save_file(
        {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}, folder / WEIGHTS
    )
    follow_umask(folder / WEIGHTS)
    write_json(_config(crosscoder, layer), folder / CONFIG)


def _thresholds(crosscoder: Crosscoder) -> Tensor:
    """Threshold of the code: theta / norm, and at least the gate of a JumpReLU crosscoder."""
    theta, norm = crosscoder.threshold.double(), crosscoder.code_norm().detach().double()
    if bool(theta.isnan()):
        raise ValueError(
            "the crosscoder has no inference threshold (NaN); train it to the end, then export it"
        )
    thresholds = torch.where(norm > 0, theta / norm.clamp_min(1e-300), torch.tensor(NEVER).double())
    if crosscoder.log_gate is not None:
        thresholds = torch.maximum(thresholds, crosscoder.log_gate.detach().double().exp())
    return thresholds.clamp(min=0, max=NEVER)


def _config(crosscoder: Crosscoder, layer: int | None) -> dict[str, Any]:
    ours = {
        "n_models": crosscoder.n_models,
        "d_model": crosscoder.d_model,
        "scale": crosscoder.normaliser.scale.double().tolist(),
        "layer": layer,
        "input": "the models' activations side by side, base first",
    }
    hook = {} if layer is None else {"hook_name": f"blocks.{layer}.hook_resid_post"}
    return {
        "architecture": "jumprelu",
        "d_in": crosscoder.n_models * crosscoder.d_model,
        "d_sae": crosscoder.n_latents,
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": {**hook, "crossdiff": ours},
    }


def _sizes(settings: Path, config: dict[str, Any], ours: dict[str, Any]) -> tuple[int, int, int, Tensor]:
    """n_models, d_model, latents and scale of a cfg.json; ValueError where it is altered."""
    try:
        n_models, d_model, n_latents = int(ours["n_models"]), int(ours["d_model"]), int(config["d_sae"])
        scale = torch.tensor([float(factor) for factor in ours["scale"]], dtype=torch.float64)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{settings} has no whole metadata.crossdiff with n_models, d_model and scale, or no d_sae "
            f"({type(error).__name__}: {error}); export the crosscoder again"
        ) from None
    if min(n_models, d_model, n_latents) < 1 or len(scale) != n_models:
        raise ValueError(
            f"{settings} says {n_models} models of width {d_model}, {n_latents} latents and {len(scale)} "
            "scales, which cannot be; export the crosscoder again"
        )
    return n_models, d_model, n_latents, scale


def read(file: Path, settings: Path) -> Weights:
    """A crosscoder of `write`, with the scale of its normaliser and a threshold per latent."""
    config, state = read_object(settings), read_state(file)
    ours = (config.get("metadata") or {}).get("crossdiff")
    if not isinstance(ours, dict):
        raise ValueError(
            f"{file} is a SAE of SAELens on one model's activations, and no crosscoder of two models; give a "
            "crosscoder, or one that export.format=saelens wrote"
        )
    n_models, d_model, n_latents, scale = _sizes(settings, config, ours)
    encoder = shaped(file, state, "W_enc", (n_models * d_model, n_latents)).double()
    decoder = shaped(file, state, "W_dec", (n_latents, n_models * d_model)).double()
    bias = shaped(file, state, "b_dec", (n_models * d_model,)).double()
    threshold = shaped(file, state, "threshold", (n_latents,)).double()
    layer = ours.get("layer")
    return Weights(
        encoder=encoder.T.unflatten(1, (n_models, d_model)) / scale[:, None],
        encoder_bias=shaped(file, state, "b_enc", (n_latents,)),
        decoder=decoder.unflatten(1, (n_models, d_model)) * scale[:, None],
        decoder_bias=bias.unflatten(0, (n_models, d_model)) * scale[:, None],
        gate=threshold.clamp_min(torch.finfo(torch.float32).tiny) if bool(threshold.any()) else None,
        scale=scale.tolist(),
        facts={} if layer is None else {"hook_point": f"blocks.{layer}.hook_resid_post"},
    )
