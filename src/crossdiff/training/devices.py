"""Whether this machine has the devices that are asked for, and which of them a process has."""

from __future__ import annotations

import torch

from crossdiff.settings import Runtime
from crossdiff.training.nodes import nodes_here


def device_of(device: str, rank: int) -> str:
    """The device of one of several ranks of a node."""
    return f"{device}:{rank}" if device == "cuda" else device


def device_beside_ranks(runtime: Runtime) -> str:
    """The device of a process that starts ranks on the step's devices: the CPU, to leave them all memory."""
    return runtime.device if runtime.n_devices == 1 else "cpu"


def check_gpus(device: str, n_devices: int, *, setting: str) -> None:
    """ValueError where a node has fewer GPUs than its share of `setting`, or `device` is one of them."""
    n_here = nodes_here().ranks_here(n_devices)
    if ":" in device and n_devices > 1:
        raise ValueError(f"{setting}={n_devices} and device={device}, which names one; give device=cuda")
    if device.startswith("cuda") and n_here > torch.cuda.device_count():
        each = "" if n_here == n_devices else f", {n_here} per node"
        raise ValueError(
            f"{setting}={n_devices}{each}, this machine has {torch.cuda.device_count()} GPUs; choose fewer "
            "devices"
        )
