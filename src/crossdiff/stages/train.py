"""train: activations of a pair on one token set -> a crosscoder with its threshold and figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import AnySparsity, within
from crossdiff.data.shards import MaskSettings
from crossdiff.settings import Runtime, Settings
from crossdiff.training.settings import TrainingSettings

if TYPE_CHECKING:
    from crossdiff.training.source import ActivationSource

VERSION = 2


class TrainInputs(Settings):
    """Everything that decides a crosscoder, apart from the activations."""

    layer: int
    dictionary: DictionarySettings
    sparsity: AnySparsity
    training: TrainingSettings
    mask: MaskSettings = MaskSettings()
    seed: int = 0


def run(inputs: TrainInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `crosscoder/`, `metrics.csv` and `training.json`; a killed run continues where it was saved."""
    from crossdiff.stages.activations import open_activations

    open_source = partial(open_activations, parents, inputs.layer, inputs.mask, device=runtime.device)
    return fit_and_save(inputs, parents, open_source, draft=draft, runtime=runtime)


def fit_and_save(
    inputs: TrainInputs,
    parents: Mapping[str, Path],
    open_source: Callable[[], ActivationSource],
    *,
    draft: Path,
    runtime: Runtime,
) -> dict[str, Any]:
    """Train on `open_source()` and write everything; the crosscoder's metadata names inputs and parents."""
    from crossdiff.data.tokens import TokenSet
    from crossdiff.io.tables import write_json
    from crossdiff.training.launch import fit_on_devices
    from crossdiff.training.run import RunFolder, TrainingRun

    training_run = TrainingRun(
        dictionary=inputs.dictionary,
        sparsity=within(inputs.sparsity, inputs.training.total_steps()),
        training=inputs.training,
        seed=inputs.seed,
        device=runtime.device,
        progress=runtime.progress,
    )
    folder = RunFolder(draft)
    crosscoder, figures = fit_on_devices(training_run, open_source, folder)
    crosscoder.metadata = {
        "inputs": inputs.identity(),
        "parents": {role: path.name for role, path in parents.items()},
        "token_hash": TokenSet.open(parents["tokens"]).token_hash,
        "training": figures,
    }
    crosscoder.save(draft / "crosscoder")
    write_json(figures, draft / "training.json")
    shutil.rmtree(folder.checkpoint.parent, ignore_errors=True)
    return figures
