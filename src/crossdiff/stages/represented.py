"""Stage `represented` (toy only): how much of every planted change the models' activations hold."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from crossdiff.data.settings import MaskSettings
from crossdiff.io.artifacts import read_manifest
from crossdiff.io.tables import read_json, write_json
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

VERSION = 1
ROLES = ("harvest_base", "harvest_tuned", "harvest_tuned_2")
"""Roles of the harvests of pt, `it` and `simpo`, in the order of `stages.activations.harvests`."""
ROWS = 8192
"""Tokens in memory in float64 at a time."""


class RepresentedInputs(Settings):
    """Inputs; parents are the organism, the tokens, and the harvests of pt, `it` and `simpo` (`ROLES`).

    ridge
        Penalty of the regression from pt, as a share of the mean variance of pt's dimensions.
    """

    layer: int = Field(ge=0)
    mask: MaskSettings = MaskSettings()
    ridge: float = Field(default=1e-3, ge=0)


def run(
    inputs: RepresentedInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write represented.json: the represented share of every category in both tuned models."""
    import torch

    from crossdiff.organisms.language import build_language
    from crossdiff.organisms.represented import behaviour_energies, behaviour_of_tokens, represented_table
    from crossdiff.stages.activations import open_activations

    made = read_manifest(parents["organism"])["inputs"]
    toy = ToySettings(**made["toy"]).model_copy(update={"seed": made["seed"]})
    language = build_language(toy)
    activations = open_activations(parents, inputs.layer, inputs.mask, device=runtime.device)
    tokens, rows = activations.token_set, activations.rows("all")
    shown = behaviour_of_tokens(tokens, language, read_json(parents["organism"] / "document_categories.json"))
    energies = behaviour_energies(
        lambda: ((part, activations.read(part).x) for part in rows.split(ROWS)),
        shown,
        tokens.document_of(torch.arange(tokens.n_tokens)) % 2,
        n_behaviours=sum(len(category.behaviours) for category in language),
        ridge=inputs.ridge,
    )
    categories = represented_table(language, energies)
    unexplained = dict(zip(("it", "simpo"), energies.unexplained.tolist(), strict=True))
    record = {"version": 1, "layer": inputs.layer, "unexplained": unexplained, "categories": categories}
    write_json(record, draft / "represented.json")
    return {
        "n_without_energy": sum(row["n_without_energy"] for row in categories),
        **{f"unexplained_{name}": value for name, value in unexplained.items()},
    }


STAGE = Stage(
    "represented",
    version=VERSION,
    run=run,
    reads=("organism", "tokens", "harvest"),
    writes="(toy only) how much of each planted change the activations hold",
    resources=needs(memory_gb=16, hours=1),
    least_seconds=3,
)
