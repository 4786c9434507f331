"""Crosscoders of neelnanda-io/Crosscoders and its forks, such as ckkissane's published Gemma-2-2b pair.

`cfg.json` + `cc_weights.pt` on the hub, `<n>_cfg.json` + `<n>.pt` as training leaves them. `W_enc`
[model, d_model, latent], `W_dec` [latent, model, d_model], `b_enc` [latent], `b_dec` [model, d_model]; ReLU
codes of `x_m * sqrt(d_model) / mean |x_m|`, whose factors are in no file.
"""

from __future__ import annotations

from pathlib import Path

from crossdiff.io.crosscoders.state_files import read_object, read_state
from crossdiff.io.crosscoders.weights import Weights, shaped

FACTS = ("model_name", "model_A", "model_B", "hook_point", "layer", "site", "d_in", "dict_size", "enc_dtype")


def read(file: Path, settings: Path) -> Weights:
    """The checkpoint in our axes; its scale is not in the file."""
    config, state = read_object(settings), read_state(file)
    if "W_enc" not in state or state["W_enc"].ndim != 3:
        raise ValueError(
            f"{file} is no crosscoder of neelnanda-io/Crosscoders: it has no W_enc [model, d_model, latent]; "
            f"it holds {', '.join(sorted(state)) or 'no tensors'}"
        )
    n_models, d_model, n_latents = state["W_enc"].shape
    for name, number in (("d_in", d_model), ("dict_size", n_latents)):
        if config.get(name, number) != number:
            raise ValueError(f"{settings} says {name}={config[name]}, {file.name} holds {number}")
    return Weights(
        encoder=state["W_enc"].permute(2, 0, 1),
        encoder_bias=shaped(file, state, "b_enc", (n_latents,)),
        decoder=shaped(file, state, "W_dec", (n_latents, n_models, d_model)),
        decoder_bias=shaped(file, state, "b_dec", (n_models, d_model)),
        facts={name: config[name] for name in FACTS if isinstance(config.get(name), str | int)},
    )
