"""Which device a run uses."""

from __future__ import annotations


def choose_device(device: str) -> str:
    """`auto` takes CUDA when there is one; a device that is asked for and missing is an error."""
    import torch

    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.split(":", maxsplit=1)[0]
    if kind == "cpu":
        return device
    if kind != "cuda":
        raise ValueError(f"device={device} is unknown; choose auto, cpu, cuda or cuda:<number>")
    if not torch.cuda.is_available():
        raise ValueError(
            f"device={device}, but torch sees no CUDA device here; use device=cpu or a machine with a GPU"
        )
    if ":" in device and int(device.split(":")[1]) >= torch.cuda.device_count():
        raise ValueError(
            f"device={device}, but there are {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return device
