"""Stage harvest: block outputs of one model on every token, one or several layers per pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.io.tables import read_json
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.import_activations import ImportHarvestInputs, import_harvest
from crossdiff.stages.protocol import Shards, Stage, needs

if TYPE_CHECKING:
    from crossdiff.data.harvest.job import HarvestJob

VERSION = 3


class HarvestInputs(Settings):
    """What determines the stored activations, besides the token set."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()
    ADDED: ClassVar[frozenset[str]] = frozenset({"aligned"})

    model: ModelSettings
    fingerprint: str
    """`models.pair.fingerprint(model)`."""
    layers: tuple[int, ...] = Field(min_length=1)
    """0-based block indices; block L's output is `hidden_states[L + 1]` of transformers."""
    source: CacheSource | LiveSource = CacheSource()
    aligned: bool = False
    """Whether the model reads the aligned token set, that of its tokenizer (`data/alignment.py`)."""


def run(
    inputs: HarvestInputs | ImportHarvestInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write shards and harvest.json into `layer_<L>/`; finished shards of a killed run are kept.

    Activations in files are imported instead (`stages/import_activations.py`).
    """
    if isinstance(inputs, ImportHarvestInputs):
        return import_harvest(inputs, parents, draft, runtime)
    from crossdiff.data.harvest.on_the_fly import run_live_job
    from crossdiff.data.harvest.run import run_job

    job = _job(inputs, parents, draft, runtime)
    match inputs.source:
        case CacheSource():
            return run_job(job, n_workers=runtime.n_workers)
        case LiveSource():
            return run_live_job(job)


def run_shards(inputs: HarvestInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> int:
    """Harvest shards that no other process has taken (array tasks); returns the shards written.

    Any number of processes may do this in one draft folder; `run` then finishes the artifact.
    """
    from crossdiff.data.harvest.run import run_part

    return run_part(_job(inputs, parents, draft, runtime))


def missing_shards(
    inputs: HarvestInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> list[str]:
    """File names of the shards that `run` would still have to compute."""
    from crossdiff.data.harvest import run as harvest_run

    return [shard.file for shard in harvest_run.missing_shards(_job(inputs, parents, draft, runtime))]


def _stores_shards(inputs: HarvestInputs | ImportHarvestInputs) -> bool:
    return isinstance(inputs, HarvestInputs) and isinstance(inputs.source, CacheSource)


def file_hashes(folder: Path) -> dict[str, str]:
    """sha256 of every shard of a harvest, from the records made when the shards were written."""
    from crossdiff.data.harvest.write import RECORD

    records = [read_json(path) for path in folder.glob(f"layer_*/{RECORD}")]
    return {name: digest for record in records for name, digest in record["sha256"].items()}


def _path(model: ModelSettings, parents: Mapping[str, Path]) -> str:
    if model.towards is not None:
        raise ValueError(f"model {model.name} is a blend and needs its blend step as parent `model`")
    return resolve(model, parents.get("organism"))


def _job(inputs: HarvestInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> HarvestJob:
    from crossdiff.data.harvest.job import HarvestJob
    from crossdiff.data.tokens import ALIGNED

    return HarvestJob(
        model=inputs.model,
        path=str(parents["model"] / "model") if "model" in parents else _path(inputs.model, parents),
        fingerprint=inputs.fingerprint,
        layers=tuple(sorted(set(inputs.layers))),
        source=inputs.source,
        tokens=parents["tokens"] / ALIGNED if inputs.aligned else parents["tokens"],
        folder=draft,
        device=runtime.device,
        progress=runtime.progress,
    )


STAGE = Stage(
    "harvest",
    version=VERSION,
    run=run,
    reads=("organism", "blend", "tune_again", "tokens"),
    writes="activations of one model's blocks, float64 statistics",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=24),
    least_seconds=11,
    has_settings=True,
    joins_layers=True,
    shards=Shards(_stores_shards, run_shards, missing_shards),
    file_hashes=file_hashes,
)
