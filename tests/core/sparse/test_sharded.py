"""The step of a sharded dictionary: ties over ranks; four ranks, dealt in two ways, as one process."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from crossdiff.core.collective import arrange, own_part, own_rank
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.shard import CrosscoderShard, Shard
from crossdiff.core.sparse.sharded import largest_with_index
from crossdiff.core.sparsity import BatchTopK
from crossdiff.core.threshold import largest_of
from crossdiff.training.optimise import Stepper, clip_
from crossdiff.training.settings import TrainingSettings

N_LATENTS, N_STEPS = 64, 200
WAYS = {"two": (1, 2), "four": (1, 4), "two by two": (2, 2)}
"""Parts of the batch, blocks of latents; each is one of so many processes times so many."""


def test_equal_values_go_to_the_lowest_index_of_the_whole_matrix() -> None:
    values = torch.tensor([1.0, 3.0, 1.0, 1.0, 2.0])
    index = torch.tensor([9, 1, 4, 0, 7])
    mask, smallest = largest_with_index(values, index, count=4, limit=8)
    assert (mask.tolist(), float(smallest)) == ([False, True, True, True, True], 1.0)
    mask, smallest = largest_with_index(values, index, count=8, limit=8)  # fewer than asked for
    assert mask.all()
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(1, 9, (200,), generator=generator).float()
    found, _ = largest_with_index(values, torch.arange(200), count=70, limit=200)
    assert torch.equal(found, largest_of(values, 70))


def start() -> Crosscoder:
    """Latents 8 and 40, of different blocks, are twins, so that their codes tie at every token."""
    crosscoder = Crosscoder(DictionarySettings(n_latents=N_LATENTS), n_models=2, d_model=8)
    crosscoder.initialise_(torch.Generator().manual_seed(3))
    with torch.no_grad():
        for rows in (crosscoder.encoder, crosscoder.decoder):
            rows[40] = rows[8]
    return crosscoder.double()


def batch(step: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(100 + step)
    return torch.randn(32, 2, 8, generator=generator, dtype=torch.float64)


def dead_at(step: int) -> torch.Tensor:
    """None at first; then fewer than AuxK asks for, all in the first block; then more, in three blocks."""
    last = 0 if step < 15 else 3 if step < 25 else 40
    return torch.arange(0, last)


def trained(crosscoder: Crosscoder, *, devices: int = 1, shards: int = 1) -> dict[str, list]:
    """Loss, AuxK and the kept codes' numbers in the whole [token, latent] matrix, of every step."""
    settings = {"n_steps": N_STEPS, "batch_size": 32, "auxiliary_k": 4, "auxiliary": 0.5, "clip_norm": 0.05}
    training = TrainingSettings(**settings, learning_rate=1e-2, devices=devices, shards=shards)
    stepper = Stepper(crosscoder, BatchTopK(k=4, k_initial=60, anneal_steps=10), training)
    optimizer, sparse = stepper.optimizer(), stepper.sparse
    assert sparse is not None
    rows = crosscoder.shard.rows if isinstance(crosscoder, CrosscoderShard) else slice(0, N_LATENTS)
    kept: list[list[int]] = []
    select = sparse._select

    def noting(*given):
        code, threshold = select(*given)
        token = code.token + own_rank() * code.n_tokens
        kept.append((token * N_LATENTS + rows.start + code.latent).tolist())
        return code, threshold

    sparse._select = noting  # type: ignore[method-assign]
    found: dict[str, list] = {"loss": [], "auxiliary": [], "n_active": [], "kept": kept}
    for number in range(N_STEPS):
        dead = dead_at(number)
        dead = dead[(dead >= rows.start) & (dead < rows.stop)] - rows.start
        result = stepper.gradients(own_part(batch(number)), step=number, dead=dead)
        found["loss"].append(float(result.total))
        found["auxiliary"].append(float(result.terms.get("auxiliary", torch.zeros(()))))
        found["n_active"].append(result.n_active)
        clip_(optimizer, crosscoder, max_norm=training.clip_norm)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return found


def rank(number: int, folder: str) -> None:
    torch.set_num_threads(1)
    for way, (devices, shards) in WAYS.items():
        if number >= devices * shards:
            continue
        meet = f"file://{folder}/meet {way}"
        distributed.init_process_group("gloo", init_method=meet, rank=number, world_size=devices * shards)
        arrange(shards)
        own = CrosscoderShard.of(start(), Shard(own_rank("shards"), shards, N_LATENTS))
        found = trained(own, devices=devices, shards=shards)
        weights = {name: getattr(own, name).detach() for name in ("encoder", "decoder", "decoder_bias")}
        torch.save(found | weights | {"rows": own.shard.rows.start}, f"{folder}/{way} {number}.pt")
        distributed.destroy_process_group()


@pytest.mark.slow
def test_blocks_of_latents_train_what_one_process_trains_in_float64(tmp_path: Path) -> None:
    spawn(rank, args=(str(tmp_path),), nprocs=4)
    alone = start()
    expected = trained(alone)
    assert expected["loss"][-1] < 0.9 * expected["loss"][0]
    assert sum(value > 0 for value in expected["auxiliary"]) >= 25
    for way, (devices, shards) in WAYS.items():
        files = [tmp_path / f"{way} {number}.pt" for number in range(devices * shards)]
        parts = [torch.load(file, weights_only=True) for file in files]
        for step, whole in enumerate(expected["kept"]):
            together = sorted(entry for part in parts for entry in part["kept"][step])
            assert together == sorted(whole), f"{way}, step {step}"
        for part in parts:
            for name in ("loss", "auxiliary"):
                assert part[name] == pytest.approx(expected[name], rel=1e-9, abs=1e-12)
            assert part["n_active"] == expected["n_active"]
            block = slice(part["rows"], part["rows"] + len(part["decoder"]))
            for name in ("encoder", "decoder"):
                whole = getattr(alone, name).detach()[block]
                torch.testing.assert_close(part[name], whole, rtol=1e-7, atol=1e-9)
            assert torch.equal(part["decoder_bias"], parts[0]["decoder_bias"])
