"""Tiny stages in place of the real ones, in the test and, through PYTHONPATH, inside SLURM jobs."""

from __future__ import annotations

import json
import os
import sys
import time
import types
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from crossdiff.data.settings import LiveSource
from crossdiff.stages.protocol import Shards, Stage, needs

STAGES = ("organism", "tokens", "harvest", "train", "scale", "documents", "annotate", "compare", "report")


def install() -> None:
    """Put the stages where `crossdiff.stages.protocol` looks for them, instead of the real ones."""
    for stage in STAGES:
        module = types.ModuleType(f"crossdiff.stages.{stage}")
        module.STAGE = declared(stage)  # type: ignore[attr-defined]
        sys.modules[module.__name__] = module


def declared(stage: str) -> Stage:
    """A fake with the name of a real stage; only the fake harvest has layers and shards."""
    fake = Stage(stage, version=1, run=run, reads=STAGES[: STAGES.index(stage)], writes="units")
    fake = replace(fake, resources=needs(gpus=int(stage in ("harvest", "train", "scale", "documents"))))
    if stage != "harvest":
        return fake
    return replace(
        fake, run=harvest, joins_layers=True, shards=Shards(stores_shards, run_shards, none_missing)
    )


def stores_shards(inputs: Any) -> bool:
    """As for the real harvest."""
    return not isinstance(getattr(inputs, "source", None), LiveSource)


def none_missing(inputs: Any, parents: Mapping[str, Path], draft: Path, runtime: Any) -> list[str]:
    """The tasks leave no shard."""
    return []


def run(inputs: Any, parents: Mapping[str, Path], draft: Path, runtime: Any) -> dict[str, Any]:
    """Write `n_units` units, one by one; a unit that is in the draft is not written again."""
    starts = Path(runtime.store) / "starts.txt"
    with starts.open("a") as handle:
        handle.write(f"{inputs.text} {os.environ.get('SLURM_JOB_ID')}\n")
    if inputs.fails_while and Path(inputs.fails_while).exists():
        raise RuntimeError(f"{inputs.fails_while} is there")
    for number in range(inputs.n_units):
        unit = draft / f"unit_{number:03d}"
        if not unit.exists():
            time.sleep(inputs.seconds)
            unit.write_text(f"{inputs.text} {number} of {sorted(parents)}\n")
            with starts.open("a") as handle:
                handle.write(f"{inputs.text} unit {number}\n")
    (draft / "report.html").write_text("<html></html>")
    (draft / "summary.json").write_text(json.dumps({"version": 1}))
    return {"n_units": inputs.n_units}


def run_shards(inputs: Any, parents: Mapping[str, Path], draft: Path, runtime: Any) -> int:
    """Claim shards as the real harvest does: what another task has is left alone."""
    n_made = 0
    for layer in inputs.layers:
        (draft / f"layer_{layer}").mkdir(exist_ok=True)
    for number in range(8):
        try:
            os.close(os.open(draft / f".claim_{number}", os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            continue
        time.sleep(0.5)
        for layer in inputs.layers:
            shard = draft / f"layer_{layer}" / f"shard_{number}"
            shard.write_text(f"{os.environ.get('SLURM_ARRAY_TASK_ID')}")
        n_made += 1
    return n_made


def harvest(inputs: Any, parents: Mapping[str, Path], draft: Path, runtime: Any) -> dict[str, Any]:
    """One folder per layer, one line in `passes.txt` per call: a forward pass."""
    with (Path(runtime.store) / "passes.txt").open("a") as handle:
        handle.write(f"{inputs.text} {list(inputs.layers)}\n")
    for layer in inputs.layers:
        (draft / f"layer_{layer}").mkdir(exist_ok=True)
        (draft / f"layer_{layer}" / "rows").write_text(f"{inputs.text} {layer}\n")
    return {"n_layers": len(inputs.layers)}
