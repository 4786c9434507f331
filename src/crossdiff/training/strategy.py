"""What Lightning is given: accelerator, strategy and environment, where ranks find one another; silence."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from lightning_fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning_fabric.plugins.environments.lightning import LightningEnvironment
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from pytorch_lightning.strategies import DDPStrategy

from crossdiff.training.nodes import nodes_here


class Ranks(DDPStrategy):
    """Processes of `DDPStrategy` without its wrapper: core sums the gradients itself."""

    def configure_ddp(self) -> None:
        """Leave the module as it is; a wrapper would keep a second copy of all gradients."""


class ShardRanks(Ranks):
    """`Ranks` that hold different weights, so that all of them save."""

    def save_checkpoint(
        self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: Any = None
    ) -> None:
        """Save every rank's part."""
        self.checkpoint_io.save_checkpoint(checkpoint, filepath, storage_options=storage_options)


RANKS_WAIT = timedelta(days=2)
"""How long ranks wait for one another, in place of Lightning's 30 minutes: a slow disk, or a validation on
one of them, may take longer, and a rank that has died is noticed by the task that started it."""


def placed(device: str, n_devices: int, *, sharded: bool = False) -> dict[str, Any]:
    """Lightning's accelerator, devices per node (or the index of the one GPU), nodes and strategy."""
    gpu, index = device.startswith("cuda"), device.partition(":")[2]
    if n_devices == 1:
        one = [int(index)] if index else 1
        return {"accelerator": "gpu" if gpu else "cpu", "devices": one, "num_nodes": 1, "strategy": "auto"}
    nodes = nodes_here()
    ranks = (ShardRanks if sharded else Ranks)(
        process_group_backend="nccl" if gpu else "gloo", timeout=RANKS_WAIT
    )
    return {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": nodes.ranks_here(n_devices),
        "num_nodes": nodes.n_nodes,
        "strategy": ranks,
    }


def environment(n_devices: int) -> ClusterEnvironment:
    """Where Lightning's ranks find one another: on one node, or on several of a SLURM job."""
    if n_devices == 1 or nodes_here().n_nodes == 1:
        return LightningEnvironment()
    return SLURMEnvironment(auto_requeue=False)


@contextmanager
def quiet_lightning() -> Iterator[None]:
    """Silence Lightning's announcements and hints; its errors are still raised."""
    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="pytorch_lightning|lightning_fabric")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*|.*num_workers.*|.*GPU available.*")
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
