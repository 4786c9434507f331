"""Every kind of file that steps write, and every step of a comparison, on a full disk: one message."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model_folders import save_model

ROOT = Path(__file__).resolve().parents[1]
NAMESPACES = (["unshare", "--mount", "--map-root-user"], ["unshare", "--mount"])
ON_A_SMALL_DISK = 'mount -t tmpfs -o size=1m tmpfs "$0" && exec "$@"'
WRITE = """
import shutil, sqlite3, sys
from pathlib import Path
import numpy as np, pandas as pd, torch
from crossdiff.__main__ import guarded
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io import tables
from crossdiff.io.interop import save_dictionary_learning
from crossdiff.training.resume import WholeCheckpoints
disk = Path(sys.argv[1])
def database():
    with sqlite3.connect(disk / "ledger.sqlite") as ledger:
        ledger.execute("create table reply (text)")
        ledger.execute("insert into reply values (?)", ("x" * 2_000_000,))
crosscoder = Crosscoder(DictionarySettings(n_latents=4096), n_models=2, d_model=32)
text = ["x" * 1000] * 2000
writers = {
    "checkpoint": lambda: WholeCheckpoints().save_checkpoint({"x": torch.randn(10**6)}, disk / "last.ckpt"),
    "crosscoder": lambda: crosscoder.save(disk / "crosscoder"),
    "export": lambda: save_dictionary_learning(crosscoder, disk / "peer", k=4),
    "table": lambda: tables.write_table(
        pd.DataFrame({"x": np.random.randn(10**6)}), disk / "latents.parquet", version=1, kind="latents"
    ),
    "json": lambda: tables.write_json(text, disk / "summary.json"),
    "lines": lambda: tables.write_jsonl(({"text": part} for part in text), disk / "annotations.jsonl"),
    "ledger": database,
}
for kind, write in writers.items():
    code = guarded(write)
    print(kind, code, *[path.name for path in disk.rglob("*") if path.is_file()])
    for path in disk.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
"""


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A mount namespace of its own, so that the small disk is gone with the process."""
    disk = str(tmp_path_factory.mktemp("disk"))
    for prefix in NAMESPACES:
        if not subprocess.run(
            [*prefix, "sh", "-c", ON_A_SMALL_DISK, disk, "true"], capture_output=True
        ).returncode:
            return prefix
    if os.environ.get("CROSSDIFF_NO_SKIPS"):
        pytest.fail("this machine allows no mount in a namespace of its own (unshare --mount)")
    pytest.skip("this machine allows no mount in a namespace of its own (unshare --mount)")


def test_a_full_disk_is_one_message_and_leaves_nothing_half(namespace: list[str], tmp_path: Path) -> None:
    done = subprocess.run(
        [*namespace, "sh", "-c", ON_A_SMALL_DISK, str(tmp_path), sys.executable, "-c", WRITE, str(tmp_path)],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    kinds = ["checkpoint", "crosscoder", "export", "table", "json", "lines", "ledger"]
    assert [(kind, code) for kind, code, *_ in rows] == [(kind, "2") for kind in kinds]
    assert done.stderr.count("no space left on the device") == len(kinds)
    final = {"last.ckpt", "weights.safetensors", "latents.parquet", "summary.json", "annotations.jsonl"}
    assert not final & {name for _, _, *names in rows for name in names}


RANKS = """
import os
from contextlib import suppress
from pathlib import Path
from crossdiff.__main__ import guarded
from crossdiff.training.ranks import in_every_rank
disk = Path(os.environ["TMPDIR"])
def work(rank, what):
    if what == "ballast":
        with suppress(OSError), (disk / "ballast").open("wb") as ballast:
            ballast.write(bytes(2_000_000))
    return bytes(3_000_000)
if __name__ == "__main__":
    for what in ("result", "ballast"):
        print(what, guarded(lambda: in_every_rank(work, (what,), n_ranks=1)))
        print(*disk.iterdir())
"""


@pytest.mark.slow
def test_a_rank_whose_temporary_folder_is_full_ends_in_the_message(
    namespace: list[str], tmp_path: Path
) -> None:
    """Its result has no room; then nothing has, not even the error."""
    (tmp_path / "disk").mkdir()
    (tmp_path / "program.py").write_text(RANKS)
    disk = str(tmp_path / "disk")
    done = subprocess.run(
        [*namespace, "sh", "-c", ON_A_SMALL_DISK, disk, sys.executable, str(tmp_path / "program.py")],
        cwd=ROOT, capture_output=True, text=True, timeout=240,
        env={**os.environ, "TMPDIR": disk},
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.splitlines() == ["result 2", "", "ballast 2", f"{disk}/ballast"]
    assert done.stderr.count(f"error: no space left on the device ({disk}/crossdiff_ranks_") == 2


PAIR = "{_target_: crossdiff.models.pair.custom_pair, base: %(base)s, dtype: float32, "
COMPARISON = f"""
_target_: crossdiff.models.pair.Comparison
reference: {PAIR} name: old, tuned: %(old)s}}
treatment: {PAIR} name: new, tuned: %(new)s}}
"""
SMALL = (
    "comparison=mine", "layer=1", "corpus=files", "corpus.context=32", "dictionary=toy",
    "dictionary.n_latents=64", "sparsity=toy", "sparsity.k=4", "training=toy", "training.n_steps=12",
    "training.batch_size=64", "training.checkpoint_every=4", "selection.method=norm", "device=cpu",
    "progress=false",
)  # fmt: skip
WORDS = "the a cat dog sat ran on under mat tree user model hello why because red blue one two three".split()
FREE = {"report.html", "summary.json", "config.json", "training.json", "metrics.csv", "tokens.safetensors"}
"""Files that say how long a step took, and tokens.safetensors, whose header has two words of metadata in
either order (tokens.json holds the hash of its content). The weights are none of them."""
STAGES = {"tokens", "harvest", "train", "scale", "documents", "annotate", "match", "compare", "report"}


@pytest.mark.slow
def test_every_step_ends_in_the_message_and_goes_on_to_the_same_bytes(
    namespace: list[str], tmp_path: Path
) -> None:
    """Each step meets a disk without room, then one with room for half of what it writes."""
    folders = {
        name: save_model(tmp_path / name, "llama", seed=i) for i, name in enumerate(["base", "old", "new"])
    }
    (tmp_path / "conf/comparison").mkdir(parents=True)
    (tmp_path / "conf/comparison/mine.yaml").write_text(COMPARISON % folders)
    rows = [
        {"text": " ".join(WORDS[(7 * i + j * (1 + i % 3)) % len(WORDS)] for j in range(24))}
        for i in range(60)
    ]
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        [*namespace, "sh", "-c", ON_A_SMALL_DISK.replace("=1m", "=64m"), str(disk), sys.executable, "-m",
         "tests.small_disk", str(disk), str(tmp_path / "whole"), "--config-dir", f"{tmp_path}/conf", *SMALL,
         f"corpus.paths=[{tmp_path}/texts.jsonl]"],
        cwd=ROOT, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    full = [line.split()[1:] for line in done.stdout.splitlines() if line.startswith("FULL")]
    assert {stage for stage, *_ in full} == STAGES
    assert len(full) == 2 * len(STAGES)
    assert [row for row in full if row[-1] != "2"] == []
    assert done.stderr.count("no space left on the device") == len(full)
    assert done.stdout.splitlines()[-1].split()[:2] == ["ROOM", "0"]
    different = done.stdout.splitlines()[-1].split()[3:]
    assert {name.partition("/")[0] for name in different} <= {"tokens", "train", "report"}
    assert {Path(name).name for name in different} <= FREE
