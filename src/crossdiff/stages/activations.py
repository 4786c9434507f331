"""Opening a step's parents: the activations of all models, and the trained crosscoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.normaliser import Normaliser
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import MaskSettings

SCALE_TOLERANCE = 0.05
"""Largest relative difference of the scale ratio (`scale_spread`) of a crosscoder and its activations."""


def harvests(parents: Mapping[str, Path]) -> list[Path]:
    """Harvest folders of all models, base first (roles harvest_base, harvest_tuned, harvest_tuned_<n>)."""
    return [parents[role] for role in _harvest_roles(parents)]


def _harvest_roles(parents: Iterable[str]) -> list[str]:
    """Base first, then the tuned models by number (as text, 10 would come before 2)."""
    roles = [role for role in parents if role.startswith("harvest_")]
    return sorted(roles, key=lambda role: (role.rstrip("0123456789"), len(role), role))


def open_activations(
    parents: Mapping[str, Path], layer: int, mask: MaskSettings, *, device: str = "cpu"
) -> PairedActivations:
    """The activations of all models, base first; `device` runs the models of a live source."""
    return PairedActivations.open(parents["tokens"], harvests(parents), layer=layer, mask=mask, device=device)


def open_crosscoder(parents: Mapping[str, Path], activations: PairedActivations) -> Crosscoder:
    """The trained crosscoder; ValueError where it has no threshold or was made for other activations."""
    folder = parents["train"] / "crosscoder"
    crosscoder = Crosscoder.load(folder)
    _check_shape(folder, crosscoder, activations)
    if bool(crosscoder.threshold.isnan()):
        raise ValueError(
            f"{folder} has no inference threshold (NaN), so no latent could be called active; train it "
            "to the end (training sets the threshold), or set `crosscoder.threshold` and save it again"
        )
    _check_origin(folder, crosscoder, activations)
    if "imported" not in crosscoder.metadata:  # the import has compared the scales and said so
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
    """ValueError where its metadata names other tokens, another layer or other harvests."""
    made_for = crosscoder.metadata
    present = {
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
        if value is not None and value != present[name]:
            raise ValueError(
                f"{folder} was trained on {name} {value}, these activations have {present[name]}; "
                "scale it on the activations it was trained on, or train again on these"
            )


def _check_scaling(folder: Path, crosscoder: Crosscoder, activations: PairedActivations) -> None:
    """ValueError where its scales are not those of these activations, up to one common factor."""
    if crosscoder.n_models == 1:  # a difference has one scale, and nothing to compare it with
        return
    expected, spread = scale_spread(crosscoder, activations)
    if not spread <= SCALE_TOLERANCE:
        raise ValueError(
            f"{folder} scales the models by {_listed(crosscoder.normaliser.scale)}, these activations need "
            f"{_listed(expected)} (up to one common factor), so it was trained on others; "
            "scale it on its own activations, or train again on these"
        )


def scale_spread(crosscoder: Crosscoder, activations: PairedActivations) -> tuple[torch.Tensor, float]:
    """Scale per model for equal variances, and how far the ratio of the crosscoder's scales to it varies."""
    mean, variance = activations.statistics()
    expected = Normaliser.from_statistics(mean, variance, target_rms=1.0).scale
    ratio = crosscoder.normaliser.scale / expected
    return expected, float(ratio.max() / ratio.min()) - 1


def _listed(scale: torch.Tensor) -> str:
    return " : ".join(f"{value:.4g}" for value in scale.tolist())
