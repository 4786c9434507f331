"""Stage scale: latent scaling of one pair's crosscoder -> the latent table and its diagnostics."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import write_json, write_table
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.core.difference_effect import EffectSums
    from crossdiff.core.latent_scaling import ScalingSums
    from crossdiff.data.paired_activations import PairedActivations

VERSION = 4
TABLE_VERSION = 1


class ScaleInputs(Settings):
    """What determines the latent table, besides the parents; `batch_size` (tokens) changes rounding only."""

    layer: int = Field(ge=0)
    mask: MaskSettings = MaskSettings()
    selection: SelectionSettings = SelectionSettings()
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = Field(default=4096, ge=1)

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"batch_size"})


def run(inputs: ScaleInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `latents.parquet` and `diagnostics.json`."""
    from crossdiff.core.difference_effect import EffectSums
    from crossdiff.training.scaling_pass import scaling_sums

    worker, sums = scaling_sums(
        partial(open_both, inputs, parents, runtime.device),
        batch_size=inputs.batch_size,
        device=runtime.device,
        n_devices=runtime.n_devices,
        progress=runtime.progress,
    )
    if isinstance(sums, EffectSums):
        return write_signs(worker, sums, inputs.selection, draft)
    return write_scaled(worker, sums, inputs.selection, draft)


def open_both(
    inputs: ScaleInputs, parents: Mapping[str, Path], device: str
) -> tuple[Crosscoder, PairedActivations]:
    """The crosscoder in `inputs.dtype`, and its activations."""
    import torch

    from crossdiff.core.latent_scaling import in_dtype
    from crossdiff.stages.activations import open_activations, open_crosscoder

    activations = open_activations(parents, inputs.layer, inputs.mask, device=device)
    crosscoder = open_crosscoder(parents, activations)
    return in_dtype(crosscoder, getattr(torch, inputs.dtype)), activations


def write_scaled(
    crosscoder: Crosscoder, sums: ScalingSums, selection: SelectionSettings, draft: Path
) -> dict[str, Any]:
    """Write the table and diagnostics from the sums of a pass; returns the step's figures."""
    from crossdiff.core.decoder_norms import has_one_space
    from crossdiff.core.diagnostics import diagnose
    from crossdiff.core.latent_table import Scaled, pair_table

    scaled = Scaled.of(crosscoder.decoder, sums, one_space=has_one_space(crosscoder))
    calls = scaled.calls(selection)
    table = pair_table(scaled, calls)
    diagnostics = diagnose(
        table,
        scaled,
        calls,
        decoder=crosscoder.decoder.detach(),
        selection=selection,
        reach=training_reach(crosscoder),
    )
    write_table(table, draft / "latents.parquet", version=TABLE_VERSION, kind="latents")
    write_json(diagnostics, draft / "diagnostics.json")
    return summary(diagnostics)


def write_signs(
    crosscoder: Crosscoder, sums: EffectSums, selection: SelectionSettings, draft: Path
) -> dict[str, Any]:
    """Table and diagnostics of a difference dictionary; returns the step's figures."""
    from crossdiff.core.difference_table import diagnose_difference, sign_table

    table = sign_table(crosscoder, sums, selection)
    found = diagnose_difference(table, sums)
    write_table(table, draft / "latents.parquet", version=TABLE_VERSION, kind="latents")
    write_json(found, draft / "diagnostics.json")
    signs = {f"n_{sign}": count for sign, count in found["signs"].items()}
    return {**signs, "n_alive": found["n_alive"], "dead_share": found["dead_share"], "l0": found["l0"]}


def training_reach(crosscoder: Crosscoder) -> float | None:
    """How far this training could move a direction, in starting norms; None where not recorded.

    Adam moves a weight by about its learning rate per step, a direction by at most sqrt(d_model) of their
    sum.
    """
    from crossdiff.training.settings import TrainingSettings

    inputs = crosscoder.metadata.get("inputs") or {}
    recorded = inputs.get("training")
    if not recorded or inputs.get("start"):  # a training that starts from another begins with any norm
        return None
    known = {name: value for name, value in recorded.items() if name in TrainingSettings.model_fields}
    settings = TrainingSettings(**known)
    rates = math.fsum(settings.learning_rate_at(step) for step in range(settings.total_steps()))
    start = crosscoder.settings.initial_norm / math.sqrt(crosscoder.n_models)
    return rates * math.sqrt(crosscoder.d_model) / start


def summary(diagnostics: dict[str, Any]) -> dict[str, Any]:
    """Figures for the progress line and the manifest."""
    return {
        "n_exclusive_tuned": diagnostics["n_exclusive"]["tuned"],
        "n_exclusive_base": diagnostics["n_exclusive"]["base"],
        "n_undecided": diagnostics["calls"].get("undecided", 0),
        "n_alive": diagnostics["n_alive"],
        "dead_share": diagnostics["dead_share"],
        "l0": diagnostics["l0"],
        "rejected": diagnostics["rejected"],
        **{f"stopped_{side}": _listed(diagnostics["rejected"][side]) for side in ("tuned", "base")},
        "split_half": _agreement(diagnostics["split_half"]),
        "signature": diagnostics["signature"]["sentence"],
    }


def _listed(stopped: dict[str, int]) -> str:
    """Latents that each clause stopped first, in the order of the clauses, as one phrase."""
    return " ".join(f"{clause}={count}" for clause, count in stopped.items() if count) or "none"


def _agreement(halves: dict[str, Any] | None) -> str:
    """How many exclusive latents two halves of the documents share, per side."""
    if halves is None:
        return "unknown (no documents)"
    return ", ".join(
        f"{side} {half['both']} of {half['first'] + half['second'] - half['both']}"
        for side, half in halves.items()
    )


STAGE = Stage(
    "scale",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest", "train"),
    writes="`latents.<pair>.parquet`: all betas and nus, intervals, the call",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=8),
    least_seconds=12,
    has_settings=True,
    ranks=lambda inputs, runtime: ("dispatch.devices", runtime.n_devices),
)
