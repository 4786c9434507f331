"""Crosscoders of OpenMOSS/Language-Model-SAEs: `config.json` + `sae_weights.safetensors`.

`W_E` [model, d_model, latent], `b_E` [model, latent] (summed over models), `W_D` [model, latent, d_model],
`b_D` [model, d_model]; the models are the order of `hook_points`. With `norm_activation: dataset-wise`
activations are multiplied by sqrt(d_model) / `dataset_average_activation_norm.<hook point>`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from crossdiff.io.crosscoders.weights import Weights, checked_scale, read_object, read_state, shaped

NORM = "dataset_average_activation_norm."
FACTS = ("hook_points", "d_model", "expansion_factor", "act_fn", "norm_activation", "dtype")


def read(file: Path, settings: Path) -> Weights:
    """The checkpoint in our axes; ValueError for other activations than ReLU, with one code per model."""
    config, state = read_object(settings), read_state(file)
    if (activation := str(config.get("act_fn", "relu")).lower()) != "relu":
        raise ValueError(
            f"{file} has act_fn={activation}, whose bound differs between models, so a latent has one code "
            "per model; give a crosscoder with act_fn=relu"
        )
    if "W_E" not in state or state["W_E"].ndim != 3:
        raise ValueError(f"{file} has no W_E [model, d_model, latent]; it has {', '.join(sorted(state))}")
    n_models, d_model, n_latents = state["W_E"].shape
    return Weights(
        encoder=state["W_E"].permute(2, 0, 1),
        encoder_bias=shaped(file, state, "b_E", (n_models, n_latents)).sum(0),
        decoder=shaped(file, state, "W_D", (n_models, n_latents, d_model)).permute(1, 0, 2),
        decoder_bias=shaped(file, state, "b_D", (n_models, d_model)),
        scale=_scale(file, config, state, n_models, d_model),
        facts={name: config[name] for name in FACTS if name in config},
    )


def _scale(
    file: Path, config: Mapping[str, Any], state: Mapping[str, Tensor], n_models: int, d_model: int
) -> list[float] | None:
    points = config.get("hook_points")
    match config.get("norm_activation", "dataset-wise"):
        case "inference":
            return [1.0] * n_models
        case "dataset-wise":
            if not isinstance(points, list) or any(f"{NORM}{point}" not in state for point in points):
                return None
            if len(points) != n_models:
                raise ValueError(f"{file.parent} has {len(points)} hook_points for {n_models} models")
            norms = checked_scale([float(state[f"{NORM}{point}"]) for point in points], n_models)
            return [math.sqrt(d_model) / norm for norm in norms]
        case other:
            raise ValueError(
                f"{file} was trained with norm_activation={other}, which scales every token; give a "
                "crosscoder with dataset-wise (one factor per model)"
            )
