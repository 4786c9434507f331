"""`action=export export.what=checkpoint`: trained crosscoders as folders that other programs read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from crossdiff.command_settings import ExportSettings
from crossdiff.config import Experiment
from crossdiff.core import checkpoint
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.interop import save_dictionary_learning
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step


def export_checkpoints(experiments: Sequence[Experiment]) -> int:
    """Write one folder per trained pair and print its path; unfinished training is a ValueError."""
    settings, named = experiments[0].export, _trained(experiments)
    if settings.hub_id is not None and len(named) > 1:
        raise ValueError(
            f"export.hub_id names one repository, this command has {len(named)} crosscoders "
            f"({', '.join(named)}); give model_pair=... for one of them"
        )
    for name, step in named.items():
        source = step.folder(experiments[0].store) / "crosscoder"
        print(f"checkpoint: {_write(source, settings.folder / name, settings)}", flush=True)
    return 0


def _trained(experiments: Sequence[Experiment]) -> dict[str, Step]:
    """Finished train steps by the name of their folder, `<pair>_<layer>`, with the key where names repeat."""
    found: dict[str, Step] = {}
    for experiment in experiments:
        for step in plan(experiment):
            if step.stage != "train" or step in found.values():
                continue
            if not step.is_finished(experiment.store):
                raise ValueError(
                    f"{step.name} (layer {experiment.layer}) is not finished in store={experiment.store}; "
                    "give the same command with action=run first"
                )
            name = f"{step.label}_{experiment.layer}"
            twin = found.get(name)
            if twin is None or twin.key != step.key:
                found[name if twin is None else f"{name}_{step.key[:8]}"] = step
    return found


def _write(source: Path, folder: Path, settings: ExportSettings) -> str:
    """The folder in the chosen format, or the URL where it was uploaded to."""
    crosscoder = Crosscoder.load(source)
    if settings.chosen_format == "crossdiff":
        crosscoder.save(folder)
    else:
        save_dictionary_learning(crosscoder, folder)
    return checkpoint.push(folder, settings.hub_id) if settings.hub_id is not None else str(folder)
