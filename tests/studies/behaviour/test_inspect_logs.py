"""Logs as inspect_ai writes them: JSON, archives in both compressions, and files that give no rates."""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from crossdiff.studies.behaviour.binary_scores import LoggedSet
from crossdiff.studies.behaviour.inspect_logs import is_inspect, read_archive, read_log

HEADER = {
    "version": 2, "status": "success",
    "eval": {"task": "inspect_evals/xstest", "model": "hf/google/gemma-2-9b-it", "model_args": {}},
    "results": {"total_samples": 3, "completed_samples": 3, "scores": []},
}  # fmt: skip


def sample(number: int, *, epoch: int = 1, **values: Any) -> dict[str, Any]:
    return {
        "id": number,
        "epoch": epoch,
        "scores": {name: {"value": value} for name, value in values.items()},
    }


SAMPLES = [
    sample(1, refusal="C"),
    sample(2, refusal="P"),
    sample(3, refusal="I"),
    sample(1, epoch=2, refusal="I"),
]


def write(path: Path, *, zstandard: bool = False, **members: Any) -> Path:
    """An archive; one with Zstandard is stored, then its members are called compressed with method 93."""
    texts = {f"{name}.json": json.dumps(data).encode() for name, data in members.items()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED if zstandard else zipfile.ZIP_DEFLATED) as archive:
        for name, text in texts.items():
            archive.writestr(name, pa.compress(text, codec="zstd", asbytes=True) if zstandard else text)
    if zstandard:
        data = bytearray(path.read_bytes())
        with zipfile.ZipFile(path) as archive:
            places = [info.header_offset for info in archive.infolist()]
        central = data.find(b"PK\x01\x02")
        for (name, text), local in zip(texts.items(), places, strict=True):
            for at, (method, crc, size) in ((local, (8, 14, 22)), (central, (10, 16, 24))):
                struct.pack_into("<H", data, at + method, 93)
                struct.pack_into("<I", data, at + crc, zlib.crc32(text))
                struct.pack_into("<I", data, at + size, len(text))
            central += 46 + len(name)
        path.write_bytes(data)
    return path


@pytest.mark.parametrize("zstandard", [False, True])
def test_an_archive_gives_the_counts_of_its_first_epoch(tmp_path: Path, zstandard: bool) -> None:
    path = write(tmp_path / "a.eval", zstandard=zstandard, header=HEADER, summaries=SAMPLES)
    log = read_archive(path)
    assert log.model == "hf/google/gemma-2-9b-it"
    assert log.sets == (LoggedSet(name="xstest/refusal", task="xstest", shown=1, n=3, n_partial=1),)


def test_an_altered_zstandard_member_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.eval", zstandard=True, header=HEADER, summaries=SAMPLES)
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.find(b"PK\x01\x02") + 16, 7)
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"a\.eval is damaged or no \.eval log"):
        read_archive(path)


def test_a_score_of_several_values_is_several_sets_and_a_missing_one_unjudged() -> None:
    rows = [
        sample(1, quality={"right": 1, "short": 0}),
        sample(2, quality={"right": 0}),
        {"id": 3, "epoch": 1},
    ]
    spec = {"task": "t", "model": "hf/local", "model_args": {"model_path": "/m/it"}}
    log = read_log({**HEADER, "eval": spec}, rows, Path("t.json"))
    assert log.model == "/m/it"
    assert [(one.name, one.shown, one.n, one.n_unjudged) for one in log.sets] == [
        ("t/quality.right", 1, 2, 1), ("t/quality.short", 0, 1, 2)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("header", "samples", "message"),
    [
        ({**HEADER, "status": "error"}, SAMPLES, "status 'error'.*eval-retry"),
        ({**HEADER, "invalidated": True}, SAMPLES, "was invalidated"),
        (HEADER, None, "no scores of single answers.*inspect score"),
        (HEADER, [{"id": 1, "epoch": 1, "scores": {}}], "no scores of single answers"),
        (HEADER, [*SAMPLES, 7], "sample 4 of .* is no sample"),
        (HEADER, [{"id": 1, "scores": [1]}], "sample 0 of .* is no sample"),
        (HEADER, [{"id": 1, "epoch": "a", "scores": {}}], "sample 0 of .* is no sample"),
        ({"version": 2}, SAMPLES, "no evaluation log of inspect_ai"),
    ],
)
def test_a_log_that_gives_no_rates_is_refused(header: Any, samples: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_log(header, samples, Path("x.json"))


def test_files_that_are_no_archives_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.eval").write_text("no archive")
    with pytest.raises(ValueError, match=r"damaged or no \.eval log"):
        read_archive(tmp_path / "a.eval")
    with pytest.raises(ValueError, match="evaluation has not ended"):
        read_archive(write(tmp_path / "b.eval", start={}))


def packed(path: Path, data: bytes, *, method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("header.json", data)
    return path


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_inspect_does_not_write_are_refused(tmp_path: Path, method: int) -> None:
    path = packed(tmp_path / "a.eval", json.dumps(HEADER).encode(), method=method)
    with pytest.raises(ValueError, match=f"compressed with method {method}"):
        read_archive(path)


def test_unusual_and_damaged_archives_are_one_clear_error(tmp_path: Path) -> None:
    data = bytearray(packed(tmp_path / "a.eval", json.dumps(HEADER).encode()).read_bytes())
    central = data.find(b"PK\x01\x02")
    encrypted, patched, torn = (bytearray(data) for _ in range(3))
    encrypted[central + 8] |= 1
    patched[central + 8] |= 0x20
    torn[41] ^= 0xFF  # the first byte of the deflated member
    for name, content in {"encrypted": encrypted, "patched": patched, "torn": torn}.items():
        path = tmp_path / f"{name}.eval"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=f"{name}.eval is (encrypted|damaged)"):
            read_archive(path)
    with pytest.raises(ValueError, match="nested too deeply"):
        read_archive(packed(tmp_path / "deep.eval", b"[" * 100_000))


def test_a_sample_without_an_epoch_is_of_the_first(tmp_path: Path) -> None:
    rows = [sample(1, grader="I", epoch=2), {**sample(1, grader="C"), "epoch": None}]
    assert read_log({**HEADER}, rows, tmp_path / "a.json").sets[0].shown == 1


def test_only_logs_are_taken_for_logs() -> None:
    assert is_inspect(HEADER)
    assert not any(map(is_inspect, ({}, [], None, {"eval": {"task": "t"}, "version": 2}, {"results": {}})))
