"""The checkpoint of a training whose latents are dealt to several ranks: a file per rank, and an index.

It can be read by any number of ranks. What has a row per latent is cut again; everything else is the same in
all files, apart from random states, which are then those of the first.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.io.checkpoint_io import CheckpointIO
from safetensors.torch import load_file
from torch import Tensor

from crossdiff.core import shard_files
from crossdiff.core.checkpoint import is_in_blocks
from crossdiff.core.collective import own_rank, told_by_all_ranks, wait_for_all_ranks, wait_for_ranks
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.shard import CrosscoderShard, Shard
from crossdiff.io.tables import errors_name
from crossdiff.training.resume import WholeCheckpoints, check_same_run, flush

SHARDS = "shards"
"""Folder of such a checkpoint, beside the file of a run without shards."""
PREFIX = "state_dict.crosscoder."
N_MOMENTS = len(shard_files.OF_LATENTS)
"""The first parameters, in the order of their moments in the optimizer's state, have a row per latent."""


class ShardedCheckpoints(CheckpointIO):
    """Called on all ranks: each writes the rows of its block of latents and reads those that it needs."""

    def __init__(self, crosscoder: CrosscoderShard) -> None:
        self.crosscoder, self.shard = crosscoder, crosscoder.shard

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Replace the checkpoint in the folder `path`; until all files are complete the earlier one stays."""
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        names = new_names(folder, self.shard.n_shards, step=int(checkpoint["global_step"]))
        if own_rank("data") == 0:
            tensors: dict[str, Tensor] = {}
            state = json.dumps(packed(checkpoint, tensors))
            file = folder / names[self.shard.index]
            with errors_name(file):
                shard_files.write_block(file, tensors, state=state)
        wait_for_all_ranks()
        if own_rank("all") == 0:
            about = {name: checkpoint[name] for name in ("identity", "n_devices", "global_step")}
            write_index(folder, self.crosscoder, names, prefix=PREFIX, about=about)

    def load_checkpoint(
        self, path: str | Path, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Read this rank's part."""
        return read_part(Path(path), self.shard)

    def remove_checkpoint(self, path: str | Path) -> None:
        """Never called: the folder of the whole run is removed when the run ends."""
        raise NotImplementedError


class WholeOfShards(WholeCheckpoints):
    """One file with everything, as without shards; reads what was saved with shards too.

    The first save removes the older shards: whoever then removes the file starts from nothing.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Replace the file, then remove the folder beside it."""
        super().save_checkpoint(checkpoint, path, storage_options)
        shutil.rmtree(Path(path).with_name(SHARDS), ignore_errors=True)

    def load_checkpoint(self, path: str | Path, *more: Any, **options: Any) -> dict[str, Any]:
        """From a file, or put together from the files of a folder."""
        if not Path(path).is_dir():
            return super().load_checkpoint(path, *more, **options)
        n_latents = int(shard_files.read_index(Path(path))["dictionary"]["n_latents"])
        return read_part(Path(path), Shard(0, 1, n_latents))


def checkpoints_of(crosscoder: Crosscoder) -> CheckpointIO:
    """How the state of a run with this crosscoder, or block of one, is saved and read."""
    if isinstance(crosscoder, CrosscoderShard):
        return ShardedCheckpoints(crosscoder)
    return WholeOfShards()


def new_names(folder: Path, n_shards: int, *, step: int) -> list[str]:
    """Files of all blocks at a step, none of which the index names: it may be the second save of that step.

    All ranks call this; the first one decides, because it has written the index.
    """
    index = folder / shard_files.INDEX
    named = index.read_text(encoding="utf-8", errors="replace") if index.is_file() else ""
    names = [f"shard_{number}_of_{n_shards}_step_{step}" for number in range(n_shards)]
    suffix = "_again" if any(f'"{name}.safetensors"' in named for name in names) else ""
    return told_by_all_ranks([f"{name}{suffix}.safetensors" for name in names])[0]


def write_index(folder: Path, crosscoder: CrosscoderShard, names: list[str], **more: Any) -> None:
    """Replace the index of a folder in which all files of these names lie, then remove other blocks."""
    shard = crosscoder.shard
    whole = crosscoder.settings.model_copy(update={"n_latents": shard.n_latents})
    shape = {"n_models": crosscoder.n_models, "d_model": crosscoder.d_model}
    flush(folder)
    shard_files.write_index(folder, names, dictionary=whole, **shape, **more)
    flush(folder)
    for old in folder.glob("shard_*.safetensors"):
        if old.name not in names:
            old.unlink()


def save_block(crosscoder: CrosscoderShard, folder: Path) -> None:
    """Write this rank's rows of a trained crosscoder, which `Crosscoder.load(folder)` puts together.

    Called by the ranks of one row, `shards`; returns when all their files are complete, also on other nodes.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shard = crosscoder.shard
    names = [f"shard_{number}_of_{shard.n_shards}.safetensors" for number in range(shard.n_shards)]
    file = folder / names[shard.index]
    with errors_name(file):
        shard_files.write_block(file, crosscoder.state_dict())
    wait_for_ranks("shards")
    if shard.index == 0:
        write_index(folder, crosscoder, names)


def read_part(folder: Path, shard: Shard) -> dict[str, Any]:
    """What Lightning saved, with the rows of `shard`."""
    files = [folder / name for name in shard_files.read_index(folder)["files"]]
    file = files[shard.index] if len(files) == shard.n_shards else files[0]
    tensors = load_file(file)
    if len(files) != shard.n_shards:
        for name in filter(_of_latents, list(tensors)):
            tensors[name] = shard_files.read_rows(files, name, shard.rows)
    return unpacked(json.loads(shard_files.read_state(file)), tensors)


def check_sharded(folder: Path, identity: dict[str, Any], *, n_devices: int) -> bool:
    """Whether there is a checkpoint to continue from; ValueError when it is damaged or of other settings."""
    if not is_in_blocks(folder):
        return False
    way_out = f"remove it to train from the start: rm -r {folder}"
    about = shard_files.read_index(folder, way_out=way_out)["about"]
    check_same_run(folder, about, identity, n_devices=n_devices, way_out=way_out)
    return True


def say_converted(folder: Path, n_shards: int) -> None:
    """Tell the user where a run goes on with another number of shards than it was saved with."""
    recorded = len(shard_files.read_index(folder)["files"])
    if recorded != n_shards:
        print(
            f"training goes on with training.shards={n_shards} from a checkpoint of {recorded}: its rows are "
            f"dealt anew, and sums are taken in another order from here on (training.shards={recorded} goes "
            "on bit by bit)",
            file=sys.stderr,
            flush=True,
        )


def packed(value: Any, tensors: dict[str, Tensor], name: str = "") -> Any:
    """`value` as JSON; its tensors go to `tensors`, under the path that leads to them."""
    match value:
        case Tensor():
            tensors[name] = value
            return {"tensor": name}
        case dict():
            return {"dict": [[key, packed(item, tensors, _under(name, key))] for key, item in value.items()]}
        case list() | tuple():
            items = [packed(item, tensors, _under(name, number)) for number, item in enumerate(value)]
            return {"tuple": items} if isinstance(value, tuple) else items
        case None | bool() | int() | float() | str():
            return value
    raise TypeError(f"{name} of a checkpoint is a {type(value).__name__}, which JSON cannot hold")


def unpacked(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The opposite of `packed`."""
    if isinstance(value, list):
        return [unpacked(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    restore: dict[str, Callable[[], Any]] = {
        "tensor": lambda: tensors[content],
        "tuple": lambda: tuple(unpacked(item, tensors) for item in content),
        "dict": lambda: {key: unpacked(item, tensors) for key, item in content},
    }
    return restore[kind]()


def _under(name: str, key: Any) -> str:
    return f"{name}.{key}" if name else str(key)


def _of_latents(name: str) -> bool:
    """Whether a tensor of a checkpoint has a row per latent."""
    if name == "state_dict.tokens_since_fired":
        return True
    if name.startswith(PREFIX):
        return name.removeprefix(PREFIX) in shard_files.OF_LATENTS
    moments = [
        f"optimizer_states.0.state.{n}.exp_avg{kind}" for n in range(N_MOMENTS) for kind in ("", "_sq")
    ]
    return name in moments
