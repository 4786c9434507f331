"""One crosscoder over more than two models, and the exclusive calls of each model against each other."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import in_dtype
from crossdiff.core.latent_table import Scaled
from crossdiff.io.tables import write_json, write_table
from crossdiff.settings import Runtime, Settings
from crossdiff.stages import scale
from crossdiff.stages.activations import open_activations, open_crosscoder
from crossdiff.stages.protocol import Stage, needs
from crossdiff.stages.train import TrainInputs, fit_and_save
from crossdiff.studies.several.many_models import exclusive_counts, model_table, shared_by_all_but

VERSION = 3
TABLE_VERSION = 1


class SeveralInputs(Settings):
    """The training, and the models' names in the order of the parents harvest_base, harvest_tuned_1, ..."""

    train: TrainInputs
    models: tuple[str, ...] = Field(min_length=2)
    selection: SelectionSettings = SelectionSettings()


def run(inputs: SeveralInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write what train writes, `latents.parquet` (a row per latent and model) and `several.json`."""
    training = inputs.train
    open_source = partial(open_activations, parents, training.layer, training.mask, device=runtime.device)
    figures = fit_and_save(training, parents, open_source, draft=draft, runtime=runtime)
    activations = open_source()
    crosscoder = open_crosscoder({**parents, "train": draft}, activations).to(runtime.device)
    worker = in_dtype(crosscoder, torch.float32)
    sums = scale.accumulate(worker, activations, training.training.batch_size, progress=runtime.progress)
    table = model_table(Scaled.of(worker.decoder, sums), inputs.models, inputs.selection)
    write_table(table, draft / "latents.parquet", version=TABLE_VERSION, kind="latents_by_model")
    fve = dict(zip(inputs.models, sums.fit.explained(), strict=True)) if sums.fit else {}
    found = {
        "version": 1,
        "models": list(inputs.models),
        "n_latents": worker.n_latents,
        "n_alive": int((sums.n_active > 0).sum()),
        "l0": figures["l0"],
        "fve": fve,
        "exclusive": exclusive_counts(table, inputs.models),
        "lacking": shared_by_all_but(table, inputs.models),
    }
    write_json(found, draft / "several.json")
    own = {f"n_exclusive_{name}": counts["all others"] for name, counts in found["exclusive"].items()}
    return {"n_alive": found["n_alive"], "l0": found["l0"], **own}


STAGE = Stage(
    "several",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest"),
    writes="one crosscoder over several models, and the calls of each",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=48),
)
