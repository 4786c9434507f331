"""Read offline W&B runs back: LevelDB record framing around wandb's own protobufs."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768
FULL, LAST = 1, 4


def records(path: Path) -> Iterator[Any]:
    """Records of one .wandb file, up to where it is complete."""
    from wandb.proto import wandb_internal_pb2

    data = path.read_bytes()
    assert data[:4] == b":W&B"
    position, gathered = 7, b""
    while position + 7 <= len(data):
        left = BLOCK - position % BLOCK
        if left < 7:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + 7])
        if kind == 0:
            position += left
            continue
        chunk = data[position + 7 : position + 7 + length]
        position += 7 + length
        if len(chunk) < length:
            return
        gathered += chunk
        if kind in (FULL, LAST):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(gathered)
            gathered = b""
            yield record


def read_runs(folder: Path, *, n: int, seconds: float = 30) -> dict[str, dict[str, Any]]:
    """The `n` runs below `folder/wandb` by name, once all have been written to their end."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        runs = [_read(path) for path in sorted(folder.glob("wandb/offline-run-*/run-*.wandb"))]
        if len(runs) >= n and all(run["exit"] is not None for run in runs):
            return {run["name"]: run for run in runs}
        time.sleep(0.1)
    raise AssertionError(f"{len(runs)} of {n} runs, exits {[run['exit'] for run in runs]}")


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {
        "config": {}, "history": [], "summary": {}, "exit": None, "artifacts": [], "name": "",
    }  # fmt: skip
    for record in records(path):
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found |= {"id": run.run_id, "project": run.project, "group": run.run_group}
                found |= {"job_type": run.job_type, "name": run.display_name, "tags": list(run.tags)}
                found["config"] |= _items(run.config.update)
            case "config":
                found["config"] |= _items(record.config.update)
            case "history":
                found["history"].append(_items(record.history.item))
            case "summary":
                found["summary"] |= _items(record.summary.update)
            case "exit":
                found["exit"] = record.exit.exit_code
            case "request" if record.request.WhichOneof("request_type") == "log_artifact":
                found["artifacts"].append(_artifact(record.request.log_artifact.artifact))
            case "artifact":
                found["artifacts"].append(_artifact(record.artifact))
    return found


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def _artifact(artifact: Any) -> dict[str, Any]:
    entries = [entry.ref or entry.local_path for entry in artifact.manifest.contents]
    return {"name": artifact.name, "type": artifact.type, "entries": entries, "metadata": artifact.metadata}
