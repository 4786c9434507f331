"""Logs of inspect_ai: `.eval` (a zip archive) and `.json`; format: https://inspect.aisi.org.uk/eval-logs.html

Read as data with a reader of our own; nothing in a log is run.
"""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from crossdiff.studies.behaviour.binary_scores import Log, log_of

HEADER, SUMMARIES = "header.json", "summaries.json"
ZSTANDARD = 93
"""Compression method of a zip member; inspect_ai writes it since 2026, Python reads it from 3.14 on."""
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, ZSTANDARD)
"""What inspect_ai has written; bzip2 and lzma unpack without a limit."""
ENCRYPTED = 1
"""Flag of a zip member."""
DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, UnicodeDecodeError)
"""What zipfile raises on damaged and on unusual archives (NotImplementedError is a RuntimeError)."""
LARGEST_BYTES = 1 << 30
"""A member that claims to be larger is refused before it is unpacked."""


def is_inspect(data: Any) -> bool:
    """Whether a JSON object is an evaluation log of inspect_ai."""
    if not isinstance(data, dict) or not isinstance(data.get("eval"), dict):
        return False
    return "version" in data and {"task", "model"} <= data["eval"].keys()


def read_archive(path: Path) -> Log:
    """The log of an `.eval` file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if HEADER not in archive.namelist():
                raise ValueError(
                    f"{path} has no {HEADER}: its evaluation has not ended, or it is no .eval log"
                )
            header, samples = (_member(archive, path, name) for name in (HEADER, SUMMARIES))
    except DAMAGED as error:
        raise ValueError(f"{path} is damaged or no .eval log of inspect_ai: {error}") from error
    return read_log(header, samples, path)


def _member(archive: zipfile.ZipFile, path: Path, name: str) -> Any:
    """One JSON file of the archive; None where it is missing."""
    if name not in archive.namelist():
        return None
    info = archive.getinfo(name)
    if info.file_size > LARGEST_BYTES:
        raise ValueError(f"{name} of {path} is larger than 1 GiB; give a log of fewer samples")
    if info.compress_type not in METHODS or info.flag_bits & ENCRYPTED:
        raise ValueError(
            f"{name} of {path} is encrypted or compressed with method {info.compress_type}, which inspect_ai "
            "does not write; give the log as inspect_ai wrote it"
        )
    try:
        return json.loads(_unpacked(archive, path, info))
    except RecursionError as error:
        raise ValueError(f"{name} of {path} is nested too deeply to be a log of inspect_ai") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} of {path} is not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise ValueError(f"{name} of {path} is not JSON: {error}") from error


def _unpacked(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> bytes:
    """The bytes of a member, never more than the archive claims."""
    if info.compress_type == ZSTANDARD:
        return _zstandard(archive, path, info)
    with archive.open(info) as member:
        return member.read(info.file_size + 1)


def _zstandard(archive: zipfile.ZipFile, path: Path, info: zipfile.ZipInfo) -> bytes:
    """A member compressed with Zstandard; the archive itself knows where it lies and how long it is."""
    import pyarrow as pa

    with path.open("rb") as handle:
        handle.seek(info.header_offset)
        local = handle.read(30)
        if len(local) < 30 or local[:4] != b"PK\x03\x04":
            raise zipfile.BadZipFile(f"{info.filename} is not where the archive says")
        name_length, extra_length = struct.unpack("<HH", local[26:30])
        handle.seek(name_length + extra_length, io.SEEK_CUR)
        packed = handle.read(info.compress_size)
    try:
        with pa.input_stream(pa.BufferReader(packed), compression="zstd") as stream:
            data = stream.read(info.file_size + 1)
    except OSError as error:
        raise zipfile.BadZipFile(f"{info.filename} cannot be unpacked: {error}") from error
    if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
        raise zipfile.BadZipFile(f"{info.filename} is not what the archive says it is")
    return data


def read_log(header: Any, samples: Any, path: Path) -> Log:
    """The log of a header and its samples (or their summaries); ValueError where it cannot give rates."""
    if not is_inspect(header):
        raise ValueError(f"{path} is no evaluation log of inspect_ai: it names no task and no model")
    status = header.get("status")
    if status != "success" or header.get("invalidated"):
        said = "was invalidated" if header.get("invalidated") else f"has the status {status!r}"
        raise ValueError(f"{path} {said}, so its rates are those of a part; run `inspect eval-retry` first")
    _check_samples(samples, path)
    if not isinstance(samples, list) or not any(_scores(sample) for sample in samples):
        raise ValueError(
            f"{path} has no scores of single answers, which are counted here; score it with `inspect score`, "
            "and evaluate without --no-log-samples"
        )
    task = str(header["eval"]["task"]).rsplit("/", 1)[-1]
    return log_of(_model(header["eval"]), task, _by_score(_first_epoch(samples)))


def _check_samples(samples: Any, path: Path) -> None:
    """ValueError where a sample is none: left out, it would change a rate silently."""
    for number, sample in enumerate(samples if isinstance(samples, list) else ()):
        whole = isinstance(sample, dict) and isinstance(sample.get("scores"), dict | None)
        if not whole or not isinstance(sample.get("epoch"), int | None):
            raise ValueError(f"sample {number} of {path} is no sample of inspect_ai (id, epoch, scores)")


def _model(spec: Mapping[str, Any]) -> str:
    """Name of the model; a local folder is an argument of the provider."""
    arguments = spec.get("model_args")
    path = arguments.get("model_path") if isinstance(arguments, dict) else None
    return str(path or spec["model"])


def _first_epoch(samples: Iterable[Any]) -> list[Mapping[str, Any]]:
    """Each question once: answers of further epochs to the same question are not independent."""
    first: dict[str, Mapping[str, Any]] = {}
    for sample in samples:
        name = json.dumps(sample.get("id"))
        if name not in first or (sample.get("epoch") or 1) < (first[name].get("epoch") or 1):
            first[name] = sample
    return list(first.values())


def _by_score(samples: Iterable[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Score -> its value per sample, None where a sample lacks it."""
    rows = [_scores(sample) for sample in samples]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _scores(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Score -> value; a score of several values gives one entry each, `<score>.<value>`."""
    found: dict[str, Any] = {}
    for name, score in (sample.get("scores") or {}).items():
        value = score.get("value") if isinstance(score, dict) else score
        if isinstance(value, dict):
            found |= {f"{name}.{part}": one for part, one in value.items()}
        else:
            found[str(name)] = value
    return found
