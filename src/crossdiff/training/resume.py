"""The checkpoint file, written whole or not at all and checked before a run continues, and random states."""

from __future__ import annotations

import os
import pickle
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO

from crossdiff.core.collective import n_ranks, told_by_all_ranks
from crossdiff.io.environment import CHANGED, git_commit, software
from crossdiff.io.tables import errors_name, write_torch


class WholeCheckpoints(TorchCheckpointIO):
    """Writes beside the target, tensor by tensor, flushes to the disk and renames; loads as Lightning does.

    Lightning's own class holds the whole file in memory and then in $TMPDIR, and flushes nothing.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Replace the file at `path`; until that is complete the earlier one stays."""
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        aside = target.with_suffix(".part")
        with errors_name(aside):
            write_torch(checkpoint, aside)
            flush(aside)
            os.replace(aside, target)
            flush(target.parent)


def flush(path: Path) -> None:
    """Have the kernel write a file, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_checkpoint(path: Path, identity: dict[str, Any], *, n_devices: int = 1) -> bool:
    """Whether there is a checkpoint to continue from; ValueError when it is damaged or of other settings."""
    if not path.is_file():
        return False
    way_out = f"remove it to train from the start: rm {path}"
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        recorded, devices = content["identity"], content["n_devices"]
    except (RuntimeError, pickle.UnpicklingError, KeyError, TypeError, EOFError, ValueError) as error:
        reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        raise ValueError(f"{path} is cut, or no checkpoint of this trainer ({reason}); {way_out}") from None
    about = {"identity": recorded, "n_devices": devices}
    check_same_run(path, about, identity, n_devices=n_devices, way_out=way_out)
    return True


def check_same_run(
    path: Path, about: Mapping[str, Any], identity: dict[str, Any], *, n_devices: int, way_out: str
) -> None:
    """ValueError when the checkpoint at `path`, which says so in `about`, is one of another run."""
    differing, devices = differences(about["identity"], identity), about["n_devices"]
    if differing:
        raise ValueError(
            f"{path} was written with other settings: {'; '.join(differing)}; go back to them, or {way_out}"
        )
    if devices != n_devices:
        raise ValueError(
            f"{path} was written on {devices} device(s), this run has {n_devices}; "
            f"continue on {devices}, or {way_out}"
        )


def refuse_disagreement(identity: dict[str, Any]) -> None:
    """ValueError, on all ranks, where one has other settings or other software than the first.

    Every rank asks git by itself. A rank whose git did not answer in time agrees with any commit, and files
    that were changed between two answers are no disagreement.
    """
    if n_ranks("all") == 1:
        return
    commit = (git_commit() or "").removesuffix(CHANGED)
    recorded = told_by_all_ranks({"software": software(), "commit": commit, **identity})
    for rank, theirs in enumerate(recorded):
        known = theirs if theirs["commit"] else {**theirs, "commit": recorded[0]["commit"]}
        first = recorded[0] if recorded[0]["commit"] else {**recorded[0], "commit": known["commit"]}
        differing = differences(first, known)
        if differing:
            raise ValueError(
                f"process {rank} of {len(recorded)} was started for another run than process 0: "
                f"{'; '.join(differing)}; give all the same command, with the same software"
            )


def differences(recorded: Any, now: Any, name: str = "") -> list[str]:
    """Dotted names of the settings that differ, each with both values."""
    if isinstance(recorded, dict) and isinstance(now, dict):
        keys = sorted(recorded.keys() | now.keys())
        parts = [differences(recorded.get(k), now.get(k), f"{name}.{k}" if name else k) for k in keys]
        return [line for part in parts for line in part]
    return [] if recorded == now else [f"{name} was {recorded!r}, is {now!r}"]


def random_states() -> dict[str, Any]:
    """States of torch's, numpy's and Python's global generators, as plain values and tensors."""
    legacy = np.random.get_state(legacy=True)  # noqa: NPY002
    assert isinstance(legacy, tuple)
    name, keys, position, has_gauss, gauss = legacy
    version, internal, gauss_next = random.getstate()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
        "numpy": [
            str(name),
            torch.from_numpy(np.asarray(keys, dtype=np.int64)),
            int(position),
            int(has_gauss),
            float(gauss),
        ],
        "python": [version, list(internal), gauss_next],
    }


def restore_random_states(states: dict[str, Any]) -> None:
    """The opposite of `random_states`."""
    torch.set_rng_state(states["torch"].cpu())
    if states["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all([state.cpu() for state in states["cuda"]])
    name, keys, position, has_gauss, gauss = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, gauss))  # noqa: NPY002
    version, internal, gauss_next = states["python"]
    random.setstate((version, tuple(internal), gauss_next))
