"""Windows: whatever the length of the data, a reader holds two of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdiff.data.harvest.write import write_harvest
from experiments.bench.harvest_work import make_tokens

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
print(before, peak_memory_mb(), data.n_kept("train") // 512)
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
