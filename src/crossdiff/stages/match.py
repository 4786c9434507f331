"""Stage match: which exclusive latents have a twin in the other pair's crosscoder, and which are new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import write_json, write_table
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    import pandas as pd
    import torch

    from crossdiff.core.matching import CodeCorrelation, Nearest, Twins
    from crossdiff.stages.match_pass import MatchedPair

VERSION = 3
TABLE_VERSION = 2
ROLES = ("harvest_base", "harvest_tuned", "train", "scale")
Verdict = Literal["twin", "split", "direction_only", "code_only", "new"]
VERDICTS: tuple[Verdict, ...] = ("twin", "split", "direction_only", "code_only", "new")


class MatchInputs(Settings):
    """Two pairs by name, and the rule for twins; parents are `<role>_<pair>` of `ROLES`, and tokens.

    min_cosine
        Of the tuned models' decoder directions (the other model of a tuned-exclusive latent has none).
    min_correlation
        Pearson's, of codes on the same tokens, zeros included.
    n_tokens
        Most tokens that are encoded, in whole documents from all over the corpus.
    """

    pairs: tuple[str, str]
    layer: int = Field(ge=0)
    mask: MaskSettings = MaskSettings()
    min_cosine: float = Field(default=0.7, gt=0, lt=1)
    min_correlation: float = Field(default=0.5, gt=0, lt=1)
    n_tokens: int = Field(default=200_000, ge=1)
    max_latents: int = Field(default=2000, ge=1)
    """Most exclusive latents per pair; the others are counted as left out."""


def run(inputs: MatchInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `matches.parquet` (a row per exclusive latent of either pair) and `matches.json` (the counts)."""
    import pandas as pd

    from crossdiff.stages.match_pass import PairFiles, correlations, correlations_on_devices, shared_rows
    from crossdiff.training.nodes import device_beside_ranks

    files = [
        PairFiles(parents_of(name, parents), inputs.layer, inputs.mask, inputs.max_latents)
        for name in inputs.pairs
    ]
    pairs = [one.open(device_beside_ranks(runtime)) for one in files]
    rows = shared_rows(pairs[0].activations, pairs[1].activations, n_tokens=inputs.n_tokens)
    if runtime.n_devices == 1:
        sums = correlations(pairs[0], pairs[1], rows)
    else:
        spread = {"device": runtime.device, "n_devices": runtime.n_devices}
        sums = correlations_on_devices(files[0], files[1], rows, **spread)
    rule = f"cosine >= {inputs.min_cosine:g} and correlation of codes >= {inputs.min_correlation:g}"
    tables, record = [], {"version": 2, "n_tokens": len(rows), "rule": rule, "pairs": {}}
    for index, name in enumerate(inputs.pairs):
        pair, other = pairs[index], pairs[1 - index]
        table = match_table(pair, other, sums[index], inputs)
        tables.append(table.assign(pair=name, other_pair=inputs.pairs[1 - index]))
        record["pairs"][name] = _counts(table, pair)
    record["matched"] = matched(*tables)
    write_table(pd.concat(tables), draft / "matches.parquet", version=TABLE_VERSION, kind="matches")
    write_json(record, draft / "matches.json")
    return {f"{name}_{what}": record["pairs"][name][what] for name in inputs.pairs for what in VERDICTS}


def parents_of(name: str, parents: Mapping[str, Path]) -> dict[str, Path]:
    """The artifacts of the pair of that name, by role, and the tokens."""
    return {"tokens": parents["tokens"], **{role: parents[f"{role}_{name}"] for role in ROLES}}


def match_table(
    pair: MatchedPair, other: MatchedPair, sums: CodeCorrelation, inputs: MatchInputs
) -> pd.DataFrame:
    """One row per exclusive latent: the nearest latents of the other pair, its twin, and the verdict.

    twin: one latent passes both minima; split: the nearest by direction and the nearest by code each pass
    theirs, but no latent passes both; direction_only, code_only: only that one passes; new: neither does.
    """
    import pandas as pd
    import torch

    from crossdiff.core.matching import nearest_code, nearest_direction, twins_of

    directions = (pair.crosscoder.decoder[pair.exclusive, -1].cpu(), other.crosscoder.decoder[:, -1].cpu())
    correlation = sums.value()
    by_direction = nearest_direction(*directions, alive=other.alive)
    by_code = nearest_code(correlation)
    minima = {"min_cosine": inputs.min_cosine, "min_correlation": inputs.min_correlation}
    twins = twins_of(*directions, correlation, alive=other.alive, **minima)
    exclusive = torch.tensor((other.table["exclusive_to"] == "tuned").to_numpy())
    return pd.DataFrame(
        {
            "latent": pair.exclusive.numpy(),
            "verdict": verdicts(by_direction, by_code, twins, inputs),
            "twin_latent": twins.latent.numpy(),
            "twin_cosine": twins.cosine.detach().double().numpy(),
            "twin_correlation": twins.correlation.numpy(),
            "twin_exclusive": _is(exclusive, twins.latent),
            "direction_latent": by_direction.latent.numpy(),
            "cosine": by_direction.similarity.detach().double().numpy(),
            "direction_exclusive": _is(exclusive, by_direction.latent),
            "code_latent": by_code.latent.numpy(),
            "correlation": by_code.similarity.numpy(),
            "code_exclusive": _is(exclusive, by_code.latent),
        }
    )


def verdicts(by_direction: Nearest, by_code: Nearest, twins: Twins, inputs: MatchInputs) -> list[Verdict]:
    """The verdict of each exclusive latent (`match_table`)."""
    close = (by_direction.similarity >= inputs.min_cosine).tolist()
    together = (by_code.similarity >= inputs.min_correlation).tolist()
    without: dict[tuple[bool, bool], Verdict] = {
        (True, True): "split",
        (True, False): "direction_only",
        (False, True): "code_only",
        (False, False): "new",
    }
    return [
        "twin" if twin >= 0 else without[direction, code]
        for twin, direction, code in zip(twins.latent.tolist(), close, together, strict=True)
    ]


def _is(exclusive: torch.Tensor, latents: torch.Tensor) -> list[bool]:
    """Whether each latent of the other pair is exclusive there; False for -1 (no latent)."""
    return (exclusive[latents.clamp(min=0)] & (latents >= 0)).tolist()


def matched(reference: pd.DataFrame, treatment: pd.DataFrame) -> dict[str, Any]:
    """The report's lists: every pair of twins once, and the latents of either pair without a twin."""
    from crossdiff.io.tables import rows_of, where

    twins: dict[tuple[int, int], dict[str, Any]] = {}
    for own, other, table in (("treatment", "reference", treatment), ("reference", "treatment", reference)):
        for row in rows_of(where(table, verdict="twin")):
            pair = {own: int(row.latent), other: int(row.twin_latent)}
            likeness = {"cosine": row.twin_cosine, "correlation": row.twin_correlation}
            rounded = {name: round(float(value), 4) for name, value in likeness.items()}
            both = {"both_exclusive": bool(row.twin_exclusive)}
            twins.setdefault((pair["reference"], pair["treatment"]), pair | rounded | both)
    lone = [where(table, verdict="new")["latent"].tolist() for table in (treatment, reference)]
    return {"pairs": list(twins.values()), "new": lone[0], "gone": lone[1]}


def _counts(table: pd.DataFrame, pair: MatchedPair) -> dict[str, Any]:
    from crossdiff.io.tables import rows_of, where

    counts = Counter(table["verdict"])
    twins = rows_of(where(table, verdict="twin"))
    return {
        "n_exclusive": len(table),
        "n_left_out": pair.n_left_out,
        **{name: counts[name] for name in VERDICTS},
        "same_latent": sum(row.direction_latent == row.code_latent == row.twin_latent for row in twins),
        "twin_is_exclusive": sum(bool(row.twin_exclusive) for row in twins),
    }


STAGE = Stage(
    "match",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest", "train", "scale"),
    writes="which exclusive latents of two pairs are the same",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=8),
    least_seconds=9,
)
