"""Crosscoders of neelnanda-io/Crosscoders and its forks, such as ckkissane's published Gemma-2-2b pair.

`cfg.json` + `cc_weights.pt` on the hub, `<n>_cfg.json` + `<n>.pt` as training leaves them. `W_enc`
[model, d_model, latent], `W_dec` [latent, model, d_model], `b_enc` [latent], `b_dec` [model, d_model]; ReLU
codes of `x_m * sqrt(d_model) / mean |x_m|`, whose factors are in no file; `write` adds them to the settings
as `activation_scale`, which other readers ignore.
"""

from __future__ import annotations

from pathlib import Path

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import renormalised
from crossdiff.core.normaliser import Normaliser
from crossdiff.io.crosscoders.weights import Weights, read_object, read_state, shaped
from crossdiff.io.tables import write_json, write_torch

FACTS = ("model_name", "model_A", "model_B", "hook_point", "layer", "site", "d_in", "dict_size", "enc_dtype")
SCALE = "activation_scale"


def read(file: Path, settings: Path) -> Weights:
    """The checkpoint in our axes, with the scale only where `write` wrote it."""
    config, state = read_object(settings), read_state(file)
    if "W_enc" not in state or state["W_enc"].ndim != 3:
        raise ValueError(
            f"{file} is no crosscoder of neelnanda-io/Crosscoders: it has no W_enc [model, d_model, latent]; "
            f"it has {', '.join(sorted(state)) or 'no tensors'}"
        )
    n_models, d_model, n_latents = state["W_enc"].shape
    for name, number in (("d_in", d_model), ("dict_size", n_latents)):
        if config.get(name, number) != number:
            raise ValueError(f"{settings} says {name}={config[name]}, {file.name} has {number}")
    return Weights(
        encoder=state["W_enc"].permute(2, 0, 1),
        encoder_bias=shaped(file, state, "b_enc", (n_latents,)),
        decoder=shaped(file, state, "W_dec", (n_latents, n_models, d_model)),
        decoder_bias=shaped(file, state, "b_dec", (n_models, d_model)),
        scale=config.get(SCALE),
        facts={name: config[name] for name in FACTS if isinstance(config.get(name), str | int)},
    )


def write(crosscoder: Crosscoder, folder: Path, *, layer: int | None) -> None:
    """Write `cfg.json` and `cc_weights.pt`; ValueError for codes other than plain ReLU.

    The normaliser's mean goes into the biases, its scale into the settings.
    """
    _check_plain(crosscoder)
    scale = crosscoder.normaliser.scale.double()
    uncentred = Normaliser(crosscoder.n_models, crosscoder.d_model)
    uncentred.scale.copy_(scale)
    written = renormalised(crosscoder, uncentred)
    tensors = {
        "W_enc": written.encoder.permute(1, 2, 0),
        "W_dec": written.decoder,
        "b_enc": written.encoder_bias,
        "b_dec": written.decoder_bias,
    }
    state = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    write_torch(state, folder / "cc_weights.pt")
    hook = {} if layer is None else {"hook_point": f"blocks.{layer}.hook_resid_post"}
    sizes = {"d_in": crosscoder.d_model, "dict_size": crosscoder.n_latents, "enc_dtype": "fp32"}
    write_json({**hook, **sizes, SCALE: scale.tolist()}, folder / "cfg.json")


def _check_plain(crosscoder: Crosscoder) -> None:
    settings, theta = crosscoder.settings, float(crosscoder.threshold)
    lost = []
    if theta != 0:
        lost.append(f"no threshold, and this one keeps codes above {theta:.4g} (trained with k)")
    if crosscoder.log_gate is not None:
        lost.append("no JumpReLU gates")
    if settings.architecture == "diff_sae":
        lost.append("no difference of models (architecture=diff_sae)")
    if settings.code_norm != "sum" and not lost:
        lost.append(f"no code_norm={settings.code_norm}, only the sum")
    if lost:
        raise ValueError(
            f"the format of neelnanda-io/Crosscoders holds ReLU codes: {'; '.join(lost)}; give "
            "export.format=saelens, dictionary_learning or crossdiff"
        )
