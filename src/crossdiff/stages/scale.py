"""Latent scaling of one pair's crosscoder: the latent table and its diagnostics, in one pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.diagnostics import diagnose
from crossdiff.core.latent_scaling import ScalingSums, empty_sums, in_dtype
from crossdiff.core.latent_table import Scaled, pair_table
from crossdiff.core.selection import SelectionSettings
from crossdiff.data.shards import MaskSettings, PairedActivations, PairedBatch
from crossdiff.io.progress import track
from crossdiff.io.tables import write_json, write_table
from crossdiff.settings import Runtime, Settings

VERSION = 1
TABLE_VERSION = 1


class ScaleInputs(Settings):
    """What determines the latent table, beside the parents. `batch_size` (tokens) changes rounding only."""

    layer: int = Field(ge=0)
    mask: MaskSettings = MaskSettings()
    selection: SelectionSettings = SelectionSettings()
    dtype: Literal["float32", "float64"] = "float32"
    batch_size: int = Field(default=4096, ge=1)

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"batch_size"})


def run(inputs: ScaleInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `latents.parquet` and `diagnostics.json`."""
    activations = open_activations(parents, inputs.layer, inputs.mask, device=runtime.device)
    crosscoder = open_crosscoder(parents, activations).to(runtime.device)
    worker = in_dtype(crosscoder, getattr(torch, inputs.dtype))
    sums = accumulate(worker, activations, inputs.batch_size, progress=runtime.progress)
    scaled = Scaled.of(worker.decoder, sums)
    calls = scaled.calls(inputs.selection)
    table = pair_table(scaled, calls)
    found = diagnose(table, scaled, calls, decoder=worker.decoder.detach(), selection=inputs.selection)
    write_table(table, draft / "latents.parquet", version=TABLE_VERSION, kind="latents")
    write_json(found, draft / "diagnostics.json")
    return summary(found)


def open_activations(
    parents: Mapping[str, Path], layer: int, mask: MaskSettings, *, device: str = "cpu"
) -> PairedActivations:
    """The pair's harvests on their shared tokens, base first; `device` runs the models of a live source."""
    harvests = [parents["harvest_base"], parents["harvest_tuned"]]
    return PairedActivations.open(parents["tokens"], harvests, layer=layer, mask=mask, device=device)


def open_crosscoder(parents: Mapping[str, Path], activations: PairedActivations) -> Crosscoder:
    """The trained crosscoder; another width, another number of models or an unset threshold is refused."""
    folder = parents["train"] / "crosscoder"
    crosscoder = Crosscoder.load(folder)
    expected = (activations.n_models, activations.d_model)
    if (crosscoder.n_models, crosscoder.d_model) != expected:
        raise ValueError(
            f"{folder} reads {crosscoder.n_models} models of width {crosscoder.d_model}, the harvests hold "
            f"{expected[0]} of width {expected[1]}; train on these harvests, "
            "or harvest the crosscoder's models"
        )
    if bool(crosscoder.threshold.isnan()):
        raise ValueError(
            f"{folder} has no inference threshold (NaN), so no latent could be called active; train it "
            "to the end (training sets the threshold), or set `crosscoder.threshold` and save it again"
        )
    return crosscoder


def accumulate(
    crosscoder: Crosscoder, activations: PairedActivations, batch_size: int, *, progress: bool = False
) -> ScalingSums:
    """One pass over all kept tokens."""
    sums = empty_sums(crosscoder, documents=True)
    dtype, device = crosscoder.decoder.dtype, crosscoder.decoder.device
    for batch in _batches(activations, batch_size, progress=progress):
        x, document, template = (part.to(device) for part in (batch.x, batch.document, batch.template))
        sums.add(crosscoder, x.to(dtype), document=document, template=template)
    return sums


def _batches(activations: PairedActivations, batch_size: int, *, progress: bool) -> Iterator[PairedBatch]:
    total = -(-activations.n_kept("all") // batch_size)
    batches = activations.batches(split="all", batch_size=batch_size)
    return track(batches, total=total, description="scale", unit="batch", enabled=progress)


def summary(found: dict[str, Any]) -> dict[str, Any]:
    """The figures that a step's line and the manifest carry."""
    return {
        "n_exclusive_tuned": found["n_exclusive"]["tuned"],
        "n_exclusive_base": found["n_exclusive"]["base"],
        "n_undecided": found["calls"].get("undecided", 0),
        "n_alive": found["n_alive"],
        "dead_share": found["dead_share"],
        "l0": found["l0"],
        "rejected": found["rejected"],
        "signature": found["signature"]["sentence"],
    }
