"""What stages that read activations have in common: the harvests of the models, the trained crosscoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.normaliser import Normaliser
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import MaskSettings

SCALE_TOLERANCE = 0.05
"""Relative difference of activation scales above which a crosscoder was made for other activations."""


def harvests(parents: Mapping[str, Path]) -> list[Path]:
    """Harvest folders of all models, base first: roles harvest_base, harvest_tuned or harvest_tuned_<n>."""
    return [parents[role] for role in _harvest_roles(parents)]


def _harvest_roles(parents: Iterable[str]) -> list[str]:
    """Base first, then the tuned models by number (as text, 10 would come before 2)."""
    roles = [role for role in parents if role.startswith("harvest_")]
    return sorted(roles, key=lambda role: (role.rstrip("0123456789"), len(role), role))


def open_activations(
    parents: Mapping[str, Path], layer: int, mask: MaskSettings, *, device: str = "cpu"
) -> PairedActivations:
    """The models' harvests on their shared tokens, base first; `device` runs the models of a live source."""
    return PairedActivations.open(parents["tokens"], harvests(parents), layer=layer, mask=mask, device=device)


def open_crosscoder(parents: Mapping[str, Path], activations: PairedActivations) -> Crosscoder:
    """The trained crosscoder; one made for other activations or without a threshold is refused."""
    folder = parents["train"] / "crosscoder"
    crosscoder = Crosscoder.load(folder)
    _check_shape(folder, crosscoder, activations)
    if bool(crosscoder.threshold.isnan()):
        raise ValueError(
            f"{folder} has no inference threshold (NaN), so no latent could be called active; train it "
            "to the end (training sets the threshold), or set `crosscoder.threshold` and save it again"
        )
    _check_origin(folder, crosscoder, activations)
    if "imported" not in crosscoder.metadata:  # others scale in their own way, which the import has told
        _check_scaling(folder, crosscoder, activations)
    return crosscoder


def _check_shape(folder: Path, crosscoder: Crosscoder, activations: PairedActivations) -> None:
    differs = crosscoder.settings.architecture == "diff_sae" and activations.n_models == 2
    expected = (1 if differs else activations.n_models, activations.d_model)
    if (crosscoder.n_models, crosscoder.d_model) != expected:
        raise ValueError(
            f"{folder} reads {crosscoder.n_models} models of width {crosscoder.d_model}, the harvests hold "
            f"{expected[0]} of width {expected[1]}; train on these harvests, "
            "or harvest the crosscoder's models"
        )


def _check_origin(folder: Path, crosscoder: Crosscoder, activations: PairedActivations) -> None:
    """Tokens, layer and models that the crosscoder says it was trained on, where it says so."""
    made_for = crosscoder.metadata
    found = {
        "token_hash": activations.token_set.token_hash,
        "layer": activations.layers[0].layer,
        "harvests": [rows.folder.name for rows in activations.layers],
    }
    parents = made_for.get("parents", {})
    trained = {
        "token_hash": made_for.get("token_hash"),
        "layer": made_for.get("inputs", {}).get("layer"),
        "harvests": [parents[role] for role in _harvest_roles(parents)] or None,
    }
    for name, value in trained.items():
        if value is not None and value != found[name]:
            raise ValueError(
                f"{folder} was trained on {name} {value}, these activations have {found[name]}; "
                "scale it on the activations it was trained on, or train again on these"
            )


def _check_scaling(folder: Path, crosscoder: Crosscoder, activations: PairedActivations) -> None:
    """The crosscoder's activation scales against those of these activations, up to one common factor."""
    if crosscoder.n_models == 1:  # a difference has one scale, so nothing that it could be held against
        return
    mean, variance = activations.statistics()
    expected = Normaliser.from_statistics(mean, variance, target_rms=1.0).scale
    ratio = crosscoder.normaliser.scale / expected
    spread = float(ratio.max() / ratio.min()) - 1
    if not spread <= SCALE_TOLERANCE:
        raise ValueError(
            f"{folder} scales the models by {_listed(crosscoder.normaliser.scale)}, these activations ask "
            f"for {_listed(expected)} (up to one common factor): they are not those it was trained on; "
            "scale it on its own activations, or train again on these"
        )


def _listed(scale: torch.Tensor) -> str:
    return " : ".join(f"{value:.4g}" for value in scale.tolist())
