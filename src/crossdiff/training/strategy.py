"""Lightning's accelerator, strategy and environment: how ranks find one another and what they save."""

from __future__ import annotations

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
    nodes = nodes_here()
    ranks = (ShardRanks if sharded else Ranks)(
        process_group_backend="nccl" if gpu else "gloo", timeout=RANKS_WAIT
    )
    return {
        "accelerator": "gpu" if gpu else "cpu",
        "devices": [int(index)] if index else nodes.ranks_here(n_devices) if n_devices > 1 else 1,
        "num_nodes": nodes.n_nodes if n_devices > 1 else 1,
        "strategy": "auto" if n_devices == 1 else ranks,
    }


def environment() -> ClusterEnvironment:
    """Where Lightning's ranks find one another: on one node, or on several of a SLURM job."""
    return LightningEnvironment() if nodes_here().n_nodes == 1 else SLURMEnvironment(auto_requeue=False)
