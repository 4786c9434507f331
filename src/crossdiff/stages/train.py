"""Stage train: activations of a pair on one token set -> a crosscoder with threshold and figures."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import AnySparsity, within
from crossdiff.data.settings import MaskSettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.import_crosscoder import ImportInputs, fingerprint, import_crosscoder
from crossdiff.stages.protocol import Stage, Together, needs
from crossdiff.training.settings import TrainingSettings

if TYPE_CHECKING:
    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.training.source import ActivationSource

VERSION = 2


class TrainInputs(Settings):
    """What determines a crosscoder, besides the activations.

    start: `import_crosscoder.fingerprint(training.start)`.
    """

    ADDED: ClassVar[frozenset[str]] = frozenset({"start"})

    layer: int
    dictionary: DictionarySettings
    sparsity: AnySparsity
    training: TrainingSettings
    mask: MaskSettings = MaskSettings()
    seed: int = 0
    start: str | None = None


def run(
    inputs: TrainInputs | ImportInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write `crosscoder/`, `metrics.csv` and `training.json`; a killed run continues from its checkpoint.

    A crosscoder that the pair names is read instead (`stages/import_crosscoder.py`).
    """
    from crossdiff.stages.activations import open_activations

    if isinstance(inputs, ImportInputs):
        return import_crosscoder(inputs, parents, draft, runtime)
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
    """Train on `open_source()` and write everything; the crosscoder's metadata names inputs and parents.

    A draft that already holds this training, finished, is kept, and its figures are returned.
    """
    from crossdiff.data.tokens import TokenSet
    from crossdiff.training.launch import fit_on_devices
    from crossdiff.training.trainer import RunFolder, TrainingRun

    if inputs.training.start is not None and fingerprint(inputs.training.start) != inputs.start:
        raise ValueError(f"training.start={inputs.training.start} has changed since this step was planned")
    folder, token_set = RunFolder(draft), TokenSet.open(parents["tokens"])
    origin = {
        "inputs": inputs.identity(),
        "parents": {role: path.name for role, path in parents.items()},
        "token_hash": token_set.token_hash,
    } | ({} if token_set.place is None else {"two_families": True})
    if (finished := finished_figures(draft, origin)) is not None:
        shutil.rmtree(folder.checkpoint.parent, ignore_errors=True)
        return finished
    training_run = TrainingRun(
        dictionary=inputs.dictionary,
        sparsity=within(inputs.sparsity, inputs.training.total_steps()),
        training=inputs.training,
        seed=inputs.seed,
        device=runtime.device,
        progress=runtime.progress,
    )
    crosscoder, figures = fit_on_devices(training_run, open_source, folder)
    crosscoder.metadata = {**origin, "training": figures}
    _save(crosscoder, figures, draft)
    shutil.rmtree(folder.checkpoint.parent, ignore_errors=True)
    return figures


def run_together(
    inputs: Sequence[TrainInputs], parents: Mapping[str, Path], drafts: Sequence[Path], runtime: Runtime
) -> list[dict[str, Any] | ValueError]:
    """`run` for trainings that differ in their seed alone and share one reader (`training.members`).

    Members whose orders of rows differ can share only activations that fit into memory; otherwise they are
    trained one after the other.
    """
    from crossdiff.io.progress import show_notices
    from crossdiff.stages.activations import open_activations
    from crossdiff.training.members import train_together

    first = inputs[0]
    activations = open_activations(parents, first.layer, first.mask, device=runtime.device)
    quiet = runtime.model_copy(update={"progress": False})

    in_step = first.training.order_seed is not None or activations.fits_one_window

    def training(number: int) -> Callable[[ActivationSource], dict[str, Any]]:
        shown = quiet if number and in_step else runtime
        return lambda source: fit_and_save(
            inputs[number], parents, lambda: source, draft=drafts[number], runtime=shown
        )

    trainings = [training(number) for number in range(len(inputs))]
    if in_step:
        return train_together(activations, trainings)
    show_notices("train", [ORDERS_DIFFER])
    return [_refusal_or(partial(train, activations)) for train in trainings]


ORDERS_DIFFER = (
    "the activations do not fit into one window in memory, and every member has another order of rows, so "
    "training.members are trained one after the other; training.order_seed=0 gives all members one order "
    "(and other keys), so that they share one reader"
)


def _refusal_or(train: Callable[[], dict[str, Any]]) -> dict[str, Any] | ValueError:
    try:
        return train()
    except ValueError as error:
        return error


def _shared(inputs: TrainInputs | ImportInputs) -> Any:
    """Equal for trainings that differ in the seed alone; None for one that runs alone."""
    if isinstance(inputs, ImportInputs) or inputs.training.members == 1:
        return None
    return inputs.model_copy(update={"seed": 0}).identity()


def _ranks(inputs: TrainInputs | ImportInputs, runtime: Runtime) -> tuple[str, int]:
    """What sets the number of processes of a training, and that number."""
    if isinstance(inputs, ImportInputs):
        return "training.devices", 1
    shared = "training.devices" if inputs.training.shards == 1 else "training.devices x training.shards"
    return shared, inputs.training.n_ranks()


def _save(crosscoder: Crosscoder, figures: dict[str, Any], draft: Path) -> None:
    """Write the crosscoder, then its figures, and flush both to the disk."""
    from crossdiff.io.tables import write_json
    from crossdiff.training.resume import flush

    crosscoder.save(draft / "crosscoder")
    write_json(figures, draft / "training.json")
    for path in (*(draft / "crosscoder").iterdir(), draft / "training.json"):
        flush(path)


def finished_figures(draft: Path, origin: Mapping[str, Any]) -> dict[str, Any] | None:
    """Figures of a finished training of this origin in `draft`; None where there is none.

    A crosscoder that cannot be read counts as not finished.
    """
    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.io.tables import read_json

    if not (draft / "training.json").is_file():  # written last
        return None
    try:
        metadata = Crosscoder.load(draft / "crosscoder").metadata
        figures = read_json(draft / "training.json")
    except ValueError:
        return None
    return figures if metadata == {**origin, "training": figures} else None


STAGE = Stage(
    "train",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest"),
    writes="crosscoder, `metrics.csv`, held-out figures",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=48),
    least_seconds=4,
    has_settings=True,
    ranks=_ranks,
    together=Together(_shared, lambda inputs: inputs.training.members, run_together),
)
