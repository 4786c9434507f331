"""Batches travel as they are stored and are computed with in float32; memory in use is never given out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.paired_batch import BatchMemory, PairedBatch
from experiments.bench.harvest_work import make_tokens


def test_narrow_rows_travel_as_they_are_and_are_computed_in_float32() -> None:
    stored = torch.tensor([[[1.0, 1 / 3]]], dtype=torch.bfloat16)
    row = torch.zeros(1, dtype=torch.int64)
    batch = PairedBatch(stored=stored, row=row, document=row, template=row > 0).activations_on("cpu")
    assert batch.stored.dtype == torch.bfloat16
    assert batch.x.dtype == torch.float32
    assert torch.equal(batch.x, torch.tensor([[[1.0, 0.333984375]]]))  # 171 / 512, the nearest bfloat16


@pytest.mark.parametrize(
    ("storages", "handed_over"),
    [
        (("bfloat16", "bfloat16"), torch.bfloat16),
        (("float16", "float16"), torch.float16),
        (("bfloat16", "float16"), torch.float32),
        (("int8", "bfloat16"), torch.float32),
    ],
)
def test_a_shuffled_batch_holds_exactly_the_rows_on_disk(
    tmp_path: Path, storages: tuple[str, str], handed_over: torch.dtype
) -> None:
    tokens = make_tokens(tmp_path / "tokens", n_tokens=3000, context=64)
    for name, storage in zip(("base", "tuned"), storages, strict=True):
        write_harvest(tmp_path / name, tokens, {0: torch.randn(tokens.n_tokens, 8)}, storage=storage)
    data = PairedActivations.open(tmp_path / "tokens", [tmp_path / "base", tmp_path / "tuned"], layer=0)
    batches = [data.training_batch(number, seed=3, batch_size=100) for number in range(5)]
    data.close()
    for batch in batches:
        assert batch.stored.dtype == handed_over
        assert torch.equal(batch.x, data.read(batch.row).x)


def test_memory_is_used_again_once_the_last_view_is_gone() -> None:
    memory = BatchMemory()
    first = memory.take((4, 2, 8), torch.bfloat16)
    place, view = first.data_ptr(), first[1:, 0]
    del first
    other = memory.take((4, 2, 8), torch.bfloat16)
    assert other.data_ptr() != place
    del view
    assert memory.take((2, 2, 8), torch.float32).data_ptr() == place  # 128 bytes, as many as the first


def test_a_larger_batch_gets_memory_of_its_own() -> None:
    memory = BatchMemory()
    memory.take((4,), torch.float32)
    assert memory.take((1000,), torch.float32).fill_(1.0).sum() == 1000


D_MODEL, WINDOW_MB = 256, 16
READ = f"""
import sys
from pathlib import Path
from crossdiff.data import paired_activations
from crossdiff.io.environment import peak_memory_mb
paired_activations.WINDOW_BYTES = {WINDOW_MB} * 2**20
folder, n_batches = Path(sys.argv[1]), int(sys.argv[2])
data = paired_activations.PairedActivations.open(folder / "tokens", [folder / "base"], layer=0)
for number in range(n_batches):
    if number == 1:
        before = peak_memory_mb()
    data.training_batch(number, seed=0, batch_size=512)
print(before, peak_memory_mb(), len(data.rows("train")) // 512)
"""


@pytest.mark.slow
def test_a_reader_holds_its_windows_and_not_the_data(tmp_path: Path) -> None:
    tokens = make_tokens(tmp_path / "tokens", n_tokens=200_000, context=256)
    write_harvest(tmp_path / "base", tokens, {0: torch.randn(tokens.n_tokens, D_MODEL)}, shard_tokens=20_000)
    size_mb = sum(path.stat().st_size for path in (tmp_path / "base").rglob("*.safetensors")) / 1e6
    assert size_mb > 200
    command = [sys.executable, "-c", READ, str(tmp_path), str(tokens.n_tokens // 512)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, last, per_epoch = map(float, done.stdout.split())
    print(f"{size_mb:.0f} MB on disk, peak {first:.0f} MB after one batch, {last:.0f} MB after an epoch")
    assert per_epoch > 300
    assert last - first < 3 * WINDOW_MB
