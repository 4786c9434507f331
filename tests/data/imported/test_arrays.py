"""Arrays of other tools: the same rows from every format, and one message for a file that is none."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from crossdiff.data.imported.arrays import array_files, open_array

X = torch.arange(70, dtype=torch.float32).reshape(14, 5) / 8  # exact in bfloat16's eight bits too


def write_shards(folder: Path, x: torch.Tensor, sizes: tuple[int, ...], **changes: object) -> Path:
    """The layout that `ActivationCache` of crosscoder_learning leaves; bfloat16 lies there as int16."""
    folder.mkdir(parents=True)
    for number, part in enumerate(x.split(sizes)):
        raw = part.view(torch.int16) if part.dtype == torch.bfloat16 else part
        (folder / f"shard_{number}.memmap").write_bytes(raw.numpy().tobytes())
        meta = {"shape": list(part.shape), "dtype": str(part.dtype), **changes}
        (folder / f"shard_{number}.meta").write_text(json.dumps(meta))
    (folder / "config.json").write_text(json.dumps({"shard_count": len(sizes), "total_size": len(x)}))
    return folder


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, torch.bfloat16) for kind in ("safetensors", "pt", "shards")),  # numpy has none
        *((kind, torch.float16) for kind in ("npy", "safetensors", "pt", "shards")),
    ],
)
def test_every_format_gives_the_same_rows(tmp_path: Path, kind: str, dtype: torch.dtype) -> None:
    path, x = tmp_path / f"x.{kind}", X.to(dtype)
    match kind:
        case "npy":
            np.save(path, x.numpy())
        case "safetensors":
            save_file({"activations": x, "other": x + 1}, path)
        case "pt":
            torch.save(x, path)
        case "shards":
            write_shards(path, x, (6, 5, 3))
    found = open_array(str(path), names=("activations", "x"))
    assert (found.shape, found.dtype, found.n_rows) == ((14, 5), dtype, 14)
    for start, stop in ((0, 14), (4, 12), (6, 11), (5, 5)):
        assert torch.equal(found.read(start, stop), x[start:stop])


def test_the_content_of_a_shard_folder_is_all_its_files(tmp_path: Path) -> None:
    folder = write_shards(tmp_path / "shards", X, (7, 7))
    assert [path.name for path in array_files(str(folder))] == [
        "config.json", "shard_0.memmap", "shard_0.meta", "shard_1.memmap", "shard_1.meta",
    ]  # fmt: skip


class Runs:
    """Would write a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_no_code_of_a_file_is_run(tmp_path: Path) -> None:
    torch.save({"x": Runs(tmp_path / "ran")}, tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(pickle.dumps(Runs(tmp_path / "ran")))
    np.save(tmp_path / "x.npy", np.array([Runs(tmp_path / "ran")]), allow_pickle=True)
    for name, said in (
        ("x.pt", "cannot be read without running code"),
        ("x.safetensors", "no whole .safetensors"),
        ("x.npy", "no whole .npy"),
    ):
        with pytest.raises(ValueError, match=said):
            open_array(str(tmp_path / name), names=("x",))
    assert not (tmp_path / "ran").exists()


def test_what_is_no_array_ends_in_one_message(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", X.numpy())
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    save_file({"a": X, "b": X + 1}, tmp_path / "two.safetensors")
    save_file({"x": X}, tmp_path / "x.safetensors")
    (tmp_path / "cut.safetensors").write_bytes((tmp_path / "x.safetensors").read_bytes()[:-8])
    torch.save({"x": X}, tmp_path / "many.pt")
    (tmp_path / "x.csv").write_text("1,2")
    np.save(tmp_path / "one.npy", np.float32(3))
    for name, said in (
        ("none.npy", "does not exist; give .npy"),
        ("cut.npy", "no whole .npy"),
        ("cut.safetensors", "no whole .safetensors"),
        ("two.safetensors", "the tensors a, b; save one tensor in it, or name it x"),
        ("many.pt", "has dict"),
        ("x.csv", "is .csv"),
        ("one.npy", "one number"),
        ("", "no shard_count"),
    ):
        with pytest.raises(ValueError, match=said):
            open_array(str(tmp_path / name), names=("x",))


def test_shards_that_do_not_fit_are_named(tmp_path: Path) -> None:
    cut = write_shards(tmp_path / "cut", X, (7, 7))
    (cut / "shard_1.memmap").write_bytes(b"0000")
    lost = write_shards(tmp_path / "lost", X, (7, 7))
    (lost / "shard_1.memmap").unlink()
    uneven = write_shards(tmp_path / "uneven", X, (7, 7))
    shuffled, inputs = (write_shards(tmp_path / name, X, (14,)) for name in ("shuffled", "inputs"))
    (shuffled / "config.json").write_text(json.dumps({"shard_count": 1, "shuffle_shards": True}))
    (inputs / "config.json").write_text(json.dumps({"shard_count": 1, "io": "in"}))
    (uneven / "shard_1.meta").write_text(json.dumps({"shape": [5, 7], "dtype": "torch.float32"}))
    for folder, said in (
        (cut, "shard_1.memmap has 4 bytes"),
        (lost, "shard_1.memmap is missing, and config.json counts 2"),
        (uneven, "differ in width or type"),
        (shuffled, "row i is another token in every model"),
        (inputs, "io=in"),
        (write_shards(tmp_path / "strange", X, (14,), dtype="torch.nothing"), "unknown to torch"),
        (write_shards(tmp_path / "shapeless", X, (14,), shape=None), "no shape"),
    ):
        with pytest.raises(ValueError, match=said):
            open_array(str(folder), names=("x",))
