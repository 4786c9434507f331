"""Reading and writing checkpoints of `dictionary_learning` and `crosscoder_learning`.

Both store a state dict: encoder.weight [model, d_model, latent], encoder.bias [latent],
decoder.weight [model, latent, d_model], decoder.bias [model, d_model], code_normalization_id,
activation_mean and activation_std [model, d_model], activation_global_scale [model], target_rms; a
BatchTopKCrossCoder also k and threshold. The config.json beside it is not read: its k may be the k from
which annealing started.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import CodeNorm, DictionarySettings
from crossdiff.core.files import follow_umask
from crossdiff.core.normaliser import Normaliser
from crossdiff.io.crosscoders.weights import read_state
from crossdiff.io.tables import write_json, write_torch

FILES = ("model.safetensors", "model.pt", "ae.pt")
CODE_NORMS: dict[int, CodeNorm] = {1: "sum", 2: "concat", 3: "mixed", 4: "none"}
PEER_NAMES: dict[CodeNorm, str] = {"sum": "CROSSCODER", "concat": "SAE", "mixed": "MIXED", "none": "NONE"}
EPSILON = 1e-8
WEIGHTS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def load_dictionary_learning(path: str | Path, *, revision: str | None = None) -> Crosscoder:
    """Read a CrossCoder or BatchTopKCrossCoder from a file, a folder or a Hugging Face hub id.

    A BatchTopKCrossCoder without a set threshold (-1) has threshold NaN, so that `encode` asks
    for one; a CrossCoder has ReLU codes and threshold 0. ValueError for codes scaled per model.
    """
    file = _find(path, revision)
    state = _stacked_layers(read_state(file))
    n_models, d_model, n_latents = _shape(file, state)
    settings = DictionarySettings(n_latents=n_latents, code_norm=_code_norm(file, state))
    normaliser = _normaliser(file, state, n_models, d_model)
    source = {"format": "dictionary_learning", "file": file.name, "path": str(path)}
    metadata = {"source": source, "k": int(state["k"]) if "k" in state else None}
    crosscoder = Crosscoder(
        settings, n_models=n_models, d_model=d_model, normaliser=normaliser, metadata=metadata
    )
    with torch.no_grad():
        crosscoder.encoder.copy_(state["encoder.weight"].permute(2, 0, 1))
        crosscoder.encoder_bias.copy_(state["encoder.bias"])
        crosscoder.decoder.copy_(state["decoder.weight"].permute(1, 0, 2))
        crosscoder.decoder_bias.copy_(state["decoder.bias"])
        crosscoder.threshold.fill_(_threshold(file, state))
    return crosscoder


def save_dictionary_learning(crosscoder: Crosscoder, folder: str | Path, *, k: int | None = None) -> Path:
    """Write model.safetensors, model.pt and config.json as `dictionary_learning` has them.

    Crosscoders with threshold 0 and no k become a CrossCoder, others a BatchTopKCrossCoder. k defaults to
    that of the crosscoder's metadata.
    """
    _check_exportable(crosscoder)
    k = crosscoder.metadata.get("training", crosscoder.metadata).get("k") if k is None else k
    threshold = float(crosscoder.threshold)
    if k is None and threshold != 0:
        raise ValueError(
            "a BatchTopKCrossCoder checkpoint needs k, and this crosscoder's metadata has none; pass k=..."
        )
    state = _weights(crosscoder) | _statistics(crosscoder.normaliser)
    if k is not None:
        state["k"] = torch.tensor(k, dtype=torch.int)
        state["threshold"] = torch.tensor(-1.0 if math.isnan(threshold) else threshold)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(state, folder / "model.safetensors")
    follow_umask(folder / "model.safetensors")
    write_torch(state, folder / "model.pt")
    write_json(_config(crosscoder, k), folder / "config.json")
    return folder


def _find(path: str | Path, revision: str | None) -> Path:
    given = Path(path)
    if given.is_file():
        return given
    folder = given if given.is_dir() else _download(str(path), revision)
    for name in FILES:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} has none of {', '.join(FILES)}; give the checkpoint file")


def _download(hub_id: str, revision: str | None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=list(FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{hub_id!r} is neither a file or folder nor a reachable hub repository "
            f"({type(error).__name__}); check the path, or give a local file"
        ) from None


def _stacked_layers(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Stack decoders that are stored as one embedding per model."""
    layers = sorted(name for name in state if name.startswith("decoder.layers."))
    if layers and "decoder.weight" not in state:
        ordered = sorted(layers, key=lambda name: int(name.split(".")[2]))
        state["decoder.weight"] = torch.stack([state.pop(name) for name in ordered])
    return state


def _shape(file: Path, state: Mapping[str, Tensor]) -> tuple[int, int, int]:
    missing = [name for name in WEIGHTS if name not in state]
    if missing or state["encoder.weight"].ndim != 3:
        raise ValueError(
            f"{file} is no CrossCoder of dictionary_learning (missing: {missing or 'a model axis'}); "
            "for crosscoders of crossdiff use Crosscoder.load"
        )
    n_models, d_model, n_latents = state["encoder.weight"].shape
    expected = {
        "encoder.bias": (n_latents,),
        "decoder.weight": (n_models, n_latents, d_model),
        "decoder.bias": (n_models, d_model),
    }
    for name, shape in expected.items():
        if (given := tuple(state[name].shape)) != shape:
            raise ValueError(f"{file}: {name} has shape {given}, expected {shape}")
    return n_models, d_model, n_latents


def _code_norm(file: Path, state: Mapping[str, Tensor]) -> CodeNorm:
    """The code norm; the sum for checkpoints without `code_normalization_id`."""
    number = int(state["code_normalization_id"]) if "code_normalization_id" in state else 1
    if number == 5:
        raise ValueError(
            f"{file} selects latents per model (code_normalization DECOUPLED), so it has one code per model; "
            "crossdiff has one code for all models: use a checkpoint with another code normalisation"
        )
    if number not in CODE_NORMS:
        raise ValueError(f"{file}: code_normalization_id {number} is unknown; known are {sorted(CODE_NORMS)}")
    return CODE_NORMS[number]


def _threshold(file: Path, state: Mapping[str, Tensor]) -> float:
    if "threshold" not in state:
        return math.nan if "k" in state else 0.0
    if state["threshold"].numel() != 1:
        raise ValueError(
            f"{file} has {state['threshold'].numel()} thresholds, one per model; one is supported"
        )
    threshold = float(state["threshold"])
    return math.nan if threshold < 0 else threshold


def _normaliser(file: Path, state: Mapping[str, Tensor], n_models: int, d_model: int) -> Normaliser:
    """The recorded scale per model; the identity where statistics are NaN.

    The scale is `activation_global_scale`, which the peer's forward pass multiplies by. Checkpoints
    without it have `target_rms / sqrt(sum std^2 + 1e-8)`.
    """
    normaliser = Normaliser(n_models, d_model)
    mean, std = state.get("activation_mean"), state.get("activation_std")
    if mean is None or std is None or bool(mean.isnan().any() | std.isnan().any()):
        return normaliser
    target = float(state["target_rms"]) if "target_rms" in state else 1.0
    scale = target / (std.double().square().sum(dim=1) + EPSILON).sqrt()
    recorded = state.get("activation_global_scale")
    if recorded is not None:
        if not torch.allclose(recorded.double(), scale, rtol=0.02):
            raise ValueError(
                f"{file}: activation_global_scale {recorded.tolist()} does not follow from activation_std "
                f"({scale.tolist()}): its activations were scaled per dimension; crossdiff scales per model"
            )
        scale = recorded
    normaliser.mean.copy_(mean)
    normaliser.scale.copy_(scale)
    return normaliser


def _check_exportable(crosscoder: Crosscoder) -> None:
    if crosscoder.log_gate is not None:
        raise ValueError(
            "JumpReLU gates have no place in a dictionary_learning checkpoint; export another crosscoder"
        )
    architecture = crosscoder.settings.architecture
    if architecture in ("designated_shared", "delta", "diff_sae"):
        raise ValueError(
            f"architecture={architecture} has no counterpart in dictionary_learning; export another"
        )


def _weights(crosscoder: Crosscoder) -> dict[str, Tensor]:
    numbers = {norm: number for number, norm in CODE_NORMS.items()}
    return {
        "encoder.weight": crosscoder.encoder.detach().permute(1, 2, 0).contiguous().cpu(),
        "encoder.bias": crosscoder.encoder_bias.detach().clone().cpu(),
        "decoder.weight": crosscoder.decoder.detach().permute(1, 0, 2).contiguous().cpu(),
        "decoder.bias": crosscoder.decoder_bias.detach().clone().cpu(),
        "code_normalization_id": torch.tensor(numbers[crosscoder.settings.code_norm]),
    }


def _statistics(normaliser: Normaliser) -> dict[str, Tensor]:
    """Deviations, equal over d_model, from which peers compute the scale; NaN for the identity.

    target_rms is so large that the peers' epsilon of 1e-8 does not matter.
    """
    mean, scale = normaliser.mean.cpu(), normaliser.scale.cpu()
    if bool((mean == 0).all() & (scale == 1).all()):
        target, mean, std = 1.0, torch.full_like(mean, math.nan), torch.full_like(mean, math.nan)
    else:
        target = max(1.0, float(scale.max()) / 10)
        total = (target / scale.double()).square() - EPSILON
        std = (total / mean.shape[1]).sqrt()[:, None].expand(mean.shape)
    return {
        "activation_mean": mean.clone(),
        "activation_std": std.float().contiguous(),
        "activation_global_scale": scale.clone(),
        "target_rms": torch.tensor(target),
    }


def _config(crosscoder: Crosscoder, k: int | None) -> dict[str, Any]:
    return {
        "activation_dim": crosscoder.d_model,
        "dict_size": crosscoder.n_latents,
        "num_layers": crosscoder.n_models,
        "code_normalization": PEER_NAMES[crosscoder.settings.code_norm],
        "dict_class": "CrossCoder" if k is None else "BatchTopKCrossCoder",
        **({} if k is None else {"k": k}),
    }
