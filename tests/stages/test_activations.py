"""A crosscoder and activations that do not belong together are refused, with the way out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.data.paired_activations import MaskSettings
from crossdiff.stages.activations import harvests, open_activations, open_crosscoder
from tests.scaling_artifacts import LAYER, Artifacts, build


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("activations"))


def changed(
    artifacts: Artifacts, folder: Path, metadata: dict[str, Any], *, scale: float = 1.0
) -> dict[str, Path]:
    crosscoder = Crosscoder.load(artifacts.parents["train"] / "crosscoder")
    crosscoder.metadata = metadata
    with torch.no_grad():
        crosscoder.normaliser.scale[1] *= scale
    crosscoder.save(folder / "crosscoder")
    return {**artifacts.parents, "train": folder}


def opened(parents: dict[str, Path]) -> Crosscoder:
    return open_crosscoder(parents, open_activations(parents, LAYER, MaskSettings()))


def test_what_belongs_together_opens(artifacts: Artifacts, tmp_path: Path) -> None:
    token_hash = open_activations(artifacts.parents, LAYER, MaskSettings()).token_set.token_hash
    parents = {"harvest_base": "harvest_base", "harvest_tuned": "harvest_tuned"}
    metadata = {"token_hash": token_hash, "inputs": {"layer": LAYER}, "parents": parents}
    assert opened(changed(artifacts, tmp_path, metadata)).n_latents == 32


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ({"token_hash": "other"}, r"trained on token_hash other, these activations have"),
        ({"inputs": {"layer": 9}}, rf"trained on layer 9, these activations have {LAYER}"),
        (
            {"parents": {"harvest_base": "a", "harvest_tuned": "b"}},
            r"trained on harvests \['a', 'b'\].*train again on these",
        ),
    ],
)
def test_other_tokens_layers_or_models_are_refused(
    artifacts: Artifacts, tmp_path: Path, metadata: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        opened(changed(artifacts, tmp_path, metadata))


def test_another_scaling_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scales the models by .* these activations need"):
        opened(changed(artifacts, tmp_path, {}, scale=1.5))


def test_harvests_come_base_first_however_the_parents_are_listed() -> None:
    roles = ("harvest_tuned_2", "tokens", "harvest_base", "harvest_tuned_1")
    found = harvests({role: Path(role) for role in roles})
    assert [path.name for path in found] == ["harvest_base", "harvest_tuned_1", "harvest_tuned_2"]


def test_eleven_tuned_models_come_by_number() -> None:
    roles = ["harvest_base", *(f"harvest_tuned_{number}" for number in range(1, 12))]
    assert [path.name for path in harvests({role: Path(role) for role in reversed(roles)})] == roles
