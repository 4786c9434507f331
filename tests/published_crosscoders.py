"""Tiny checkpoints as other tools publish them, and their codes written with loops in float64."""

import json
from pathlib import Path

import torch
import yaml
from safetensors.torch import save_file
from torch import Tensor

N_MODELS, D_MODEL, N_LATENTS = 2, 4, 6
SCALE = (0.28, 0.24)
POINTS = ("blocks.3.hook_resid_post.base", "blocks.3.hook_resid_post.tuned")
NORMS = {POINTS[0]: 7.0, POINTS[1]: 9.0}


def drawn(seed: int = 0) -> dict[str, Tensor]:
    """Weights in the axes of their files, gates `[latent]`, and activations x `[token, model, d]`."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "encoder": random(N_MODELS, D_MODEL, N_LATENTS),
        "decoder": random(N_LATENTS, N_MODELS, D_MODEL),
        "encoder_bias": random(N_LATENTS),
        "decoder_bias": random(N_MODELS, D_MODEL),
        "gate": random(N_LATENTS).abs() + 0.2,
        "x": 3 * random(8, N_MODELS, D_MODEL),
    }


def code_by_hand(draw: dict[str, Tensor], *, scale, gate: Tensor | None = None) -> Tensor:
    """relu or JumpReLU of sum_m s_m x_m W_m + b in float64, `[token, latent]`."""
    pre = draw["encoder_bias"].double().expand(len(draw["x"]), -1).clone()
    for m, factor in enumerate(scale):
        pre += factor * draw["x"][:, m].double() @ draw["encoder"][m].double()
    return pre.relu() if gate is None else pre * (pre > gate.double()) * (pre > 0)


def decoded_by_hand(draw: dict[str, Tensor], code: Tensor, *, scale) -> Tensor:
    """(code W_dec^m + b^m) / s_m, `[token, model, d]`."""
    parts = [
        (code @ draw["decoder"][:, m].double() + draw["decoder_bias"][m].double()) / factor
        for m, factor in enumerate(scale)
    ]
    return torch.stack(parts, dim=1)


def write_neelnanda(folder: Path, draw: dict[str, Tensor], *, number: int | None = None) -> Path:
    """`cfg.json` + `cc_weights.pt`, or with a number the layout that training leaves."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "W_enc": draw["encoder"],
        "W_dec": draw["decoder"],
        "b_enc": draw["encoder_bias"],
        "b_dec": draw["decoder_bias"],
    }
    names = ("cc_weights.pt", "cfg.json") if number is None else (f"{number}.pt", f"{number}_cfg.json")
    torch.save(state, folder / names[0])
    settings = {"d_in": D_MODEL, "dict_size": N_LATENTS, "enc_dtype": "fp32", "model_name": "gemma-2-2b"}
    (folder / names[1]).write_text(json.dumps(settings))
    return folder


def write_crosscode(
    folder: Path, draw: dict[str, Tensor], *, activation: str = "ReLUActivation", folded: bool = False
) -> Path:
    """`model.pt` + `model_cfg.yaml`; folded weights have SCALE multiplied into them."""
    folder.mkdir(parents=True, exist_ok=True)
    factor = torch.tensor(SCALE if folded else (1.0, 1.0))
    state = {
        "_W_enc_XiDiL": (draw["encoder"] * factor[:, None, None])[:, None],
        "_W_dec_LXoDo": (draw["decoder"] / factor[:, None])[:, :, None],
        "b_enc_L": draw["encoder_bias"],
        "_b_dec_XoDo": (draw["decoder_bias"] / factor[:, None])[:, None],
        "is_folded": torch.tensor(folded),
        "folded_scaling_factors_in_Xi": torch.zeros(N_MODELS, 1),
        "folded_scaling_factors_out_Xo": torch.zeros(N_MODELS, 1),
    }
    if "JumpReLU" in activation:
        state["_activation_fn.log_threshold_L"] = draw["gate"].log()
    torch.save(state, folder / "model.pt")
    settings = {
        "n_models": N_MODELS,
        "hookpoints": ("blocks.3.hook_resid_post",),
        "d_model": D_MODEL,
        "n_latents": N_LATENTS,
        "activation_fn": {"classname": activation, "cfg": {}},
    }
    (folder / "model_cfg.yaml").write_text(yaml.dump(settings))
    return folder


def write_openmoss(
    folder: Path, draw: dict[str, Tensor], *, norm: str = "dataset-wise", act: str = "relu"
) -> Path:
    """`config.json` + `sae_weights.safetensors`; the encoder bias is split unevenly over the models."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {
        "W_E": draw["encoder"],
        "b_E": torch.stack([0.25 * draw["encoder_bias"], 0.75 * draw["encoder_bias"]]),
        "W_D": draw["decoder"].permute(1, 0, 2),
        "b_D": draw["decoder_bias"],
        **{f"dataset_average_activation_norm.{name}": torch.tensor(value) for name, value in NORMS.items()},
    }
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "sae_weights.safetensors")
    settings = {"sae_type": "crosscoder", "hook_points": POINTS, "d_model": D_MODEL, "act_fn": act}
    (folder / "config.json").write_text(json.dumps({**settings, "norm_activation": norm}))
    return folder
