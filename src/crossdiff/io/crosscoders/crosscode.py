"""Crosscoders of oli-clive-griffin/crosscode: `model.pt` + `model_cfg.yaml`.

`_W_enc_XiDiL` [model, hook point, d_model, latent], `_W_dec_LXoDo` [latent, model, hook point, d_model],
`b_enc_L`, `_b_dec_XoDo`; JumpReLU thresholds are the exponential of `_activation_fn.log_threshold_L` and
apply to the code. `is_folded`: the weights include the activation scale and read raw activations.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from crossdiff.io.crosscoders.weights import Weights, read_object, read_state, shaped

GATE = "_activation_fn.log_threshold_L"
FACTS = ("n_models", "hookpoints", "d_model", "n_latents")


def read(file: Path, settings: Path) -> Weights:
    """The checkpoint in our axes; ValueError unless it has ReLU or JumpReLU codes of one hook point."""
    config, state = read_object(settings), read_state(file)
    activation = _activation(file, config)
    if "_W_enc_XiDiL" not in state or state["_W_enc_XiDiL"].ndim != 4:
        raise ValueError(
            f"{file} is no crosscoder over models and hook points: it has no _W_enc_XiDiL "
            f"[model, hook point, d_model, latent]; it has {', '.join(sorted(state)) or 'no tensors'}"
        )
    n_models, n_points, d_model, n_latents = state["_W_enc_XiDiL"].shape
    if n_points != 1:
        raise ValueError(
            f"{file} reads {n_points} hook points of each model; a pair is compared at one layer, so give a "
            "crosscoder with one hook point"
        )
    decoder = shaped(file, state, "_W_dec_LXoDo", (n_latents, n_models, 1, d_model))
    gate = None
    if activation == "jumprelu":
        gate = shaped(file, state, GATE, (n_latents,)).double().exp()
    return Weights(
        encoder=state["_W_enc_XiDiL"][:, 0].permute(2, 0, 1),
        encoder_bias=state["b_enc_L"] if "b_enc_L" in state else torch.zeros(n_latents),
        decoder=decoder[:, :, 0],
        decoder_bias=state["_b_dec_XoDo"][:, 0] if "_b_dec_XoDo" in state else torch.zeros(n_models, d_model),
        gate=gate,
        scale=[1.0] * n_models if "is_folded" in state and bool(state["is_folded"]) else None,
        facts={"activation": activation, **{name: config[name] for name in FACTS if name in config}},
    )


def _activation(file: Path, config: dict[str, Any]) -> str:
    declared = config.get("activation_fn")
    name = declared.get("classname") if isinstance(declared, dict) else declared
    if "jumprelu" in str(name).lower():
        return "jumprelu"
    if str(name).lower().startswith("relu"):
        return "relu"
    raise ValueError(
        f"{file} has codes of {name}, which keeps the largest of a batch and stores no threshold, so a "
        "single token has no code; give a crosscoder with ReLU or JumpReLU"
    )
