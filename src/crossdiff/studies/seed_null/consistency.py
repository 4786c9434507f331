"""Stage consistency: PW-MCC of the decoders of two crosscoders that differ in their seed alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from crossdiff.core.exclusive_call import exclusive_latents
from crossdiff.io.tables import read_table, write_json
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from torch import Tensor

VERSION = 1
Group = Literal["exclusive", "shared"]
GROUPS: tuple[Group, ...] = ("exclusive", "shared")


class ConsistencyInputs(Settings):
    """Parents are `train_a`, `scale_a`, `train_b` and `scale_b`, the crosscoders of two seeds."""

    max_latents: int = Field(default=4096, ge=1)
    """Most latents of a group in a crosscoder; larger groups are not matched, because time is cubic."""
    seed: int = 0
    """Seed of the random directions for `by_chance`."""


def run(
    inputs: ConsistencyInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write `consistency.json`: per group both numbers of latents, PW-MCC, and PW-MCC by chance."""
    from crossdiff.core.crosscoder import Crosscoder

    sides = []
    for side in ("a", "b"):
        table = read_table(parents[f"scale_{side}"] / "latents.parquet", kind="latents")
        decoder = Crosscoder.load(parents[f"train_{side}"] / "crosscoder").decoder.detach().flatten(1)
        sides.append({group: decoder[members(table, group)] for group in GROUPS})
    record = {group: alike(sides[0][group], sides[1][group], inputs) for group in GROUPS}
    write_json(record, draft / "consistency.json")
    return {f"pw_mcc_{group}": record[group]["pw_mcc"] for group in GROUPS}


def members(table: pd.DataFrame, group: Group) -> list[int]:
    """exclusive: to the tuned model; shared: alive and not called exclusive."""
    if group == "exclusive":
        return exclusive_latents(table, "tuned")
    shared = table["exclusive_to"].isna() & (table["n_active"] > 0)
    return shared.to_numpy().nonzero()[0].tolist()


def alike(
    first: Float[Tensor, "own width"], second: Float[Tensor, "other width"], inputs: ConsistencyInputs
) -> dict[str, Any]:
    """PW-MCC of two sets of directions, and of as many random ones; None where not computed.

    `by_chance` depends on the sizes: small sets in wide spaces are less alike by chance.
    """
    import torch

    from crossdiff.core.matching import pairwise_mcc

    sizes = [len(first), len(second)]
    record: dict[str, Any] = {"n_latents": sizes, "pw_mcc": None, "by_chance": None}
    if min(sizes) == 0 or max(sizes) > inputs.max_latents:
        return record
    generator = torch.Generator().manual_seed(inputs.seed)
    drawn = [torch.randn(real.shape, generator=generator) for real in (first, second)]
    return {**record, "pw_mcc": pairwise_mcc(first, second), "by_chance": pairwise_mcc(*drawn)}


STAGE = Stage(
    "consistency",
    version=VERSION,
    run=run,
    reads=("train", "scale"),
    writes="how alike the decoders of two seeds are (PW-MCC), exclusive and shared latents apart",
    resources=needs(memory_gb=8, hours=1),
)
