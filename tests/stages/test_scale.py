"""The scale stage on small finished artifacts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import ScalingSums
from crossdiff.core.latent_table import latent_scaling
from crossdiff.io.tables import read_json, read_table
from crossdiff.settings import Runtime
from crossdiff.stages import scale
from tests.scaling_artifacts import LAYER, Artifacts, build, random_crosscoder

QUIET = Runtime(progress=False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("scale"))


def inputs(**changes: object) -> scale.ScaleInputs:
    return scale.ScaleInputs(**{"layer": LAYER, "dtype": "float64", **changes})


def test_the_stage_writes_the_table_of_latent_scaling_over_all_kept_tokens(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    found = scale.run(inputs(batch_size=301), artifacts.parents, tmp_path, QUIET)
    table = read_table(tmp_path / "latents.parquet", kind="latents")
    kept = torch.arange(len(artifacts.x)) % 40 != 0  # every document begins with BOS
    expected = latent_scaling(artifacts.crosscoder, [(artifacts.x[kept], artifacts.document[kept])])
    assert list(table.columns) == list(expected.columns)
    for name in expected.columns:
        if expected[name].dtype.kind == "f":
            assert (table[name].isna() == expected[name].isna()).all(), name
            assert (
                (table[name] - expected[name]).abs().dropna() <= 1e-9 * (1 + expected[name].abs()).dropna()
            ).all()
    assert list(table["call"]) == list(expected["call"])
    assert found["n_alive"] == 31


def test_diagnostics_are_plain_json_and_rejections_add_up_to_all_latents(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    printed = scale.run(inputs(), artifacts.parents, tmp_path, QUIET)
    found = read_json(tmp_path / "diagnostics.json")
    for side in ("tuned", "base"):
        assert sum(found["rejected"][side].values()) == found["n_latents"] == 32
        assert found["rejected"][side]["exclusive"] == found["n_exclusive"][side]
    n_exclusive = found["n_exclusive"]["tuned"]
    assert (f"exclusive={n_exclusive}" in printed["stopped_tuned"]) == (n_exclusive > 0)
    both, first, second = (found["split_half"]["tuned"][name] for name in ("both", "first", "second"))
    assert printed["split_half"].startswith(f"tuned {both} of {first + second - both}")
    assert sum(found["delta_norm"]["counts"]) == found["n_alive"] == sum(found["log10_density"]["counts"])
    assert set(found["split_half"]) == {"tuned", "base"}


def test_a_crosscoder_of_another_width_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    random_crosscoder(16, 12, seed=0).save(tmp_path / "crosscoder")
    with pytest.raises(ValueError, match=r"width 12.*width 8"):
        scale.run(inputs(), {**artifacts.parents, "train": tmp_path}, tmp_path, QUIET)


def test_an_unset_threshold_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    random_crosscoder(16, 8, seed=0, threshold=float("nan")).save(tmp_path / "crosscoder")
    with pytest.raises(ValueError, match="no inference threshold"):
        scale.run(inputs(), {**artifacts.parents, "train": tmp_path}, tmp_path, QUIET)


def test_too_few_documents_give_no_interval_and_an_undecided_call(tmp_path: Path) -> None:
    few = build(tmp_path / "few", n_documents=3, length=200)
    settings = SelectionSettings(min_tokens=1, min_documents=1)
    scale.run(inputs(selection=settings), few.parents, tmp_path, QUIET)
    table = read_table(tmp_path / "latents.parquet", kind="latents")
    assert table["nu_error_low"].isna().all()
    assert set(table["call"]) <= {"undecided", "not_exclusive"}
    rejected = read_json(tmp_path / "diagnostics.json")["failing"]["tuned"]
    assert rejected["beta_error_interval"] > 0


def test_too_few_tokens_leave_every_latent_undecided_with_the_reason(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    settings = SelectionSettings(min_tokens=10**6)
    found = scale.run(inputs(selection=settings), artifacts.parents, tmp_path, QUIET)
    assert found["n_undecided"] == 32
    assert found["n_exclusive_tuned"] == 0
    assert found["rejected"]["tuned"]["min_tokens"] > 0


def test_batch_size_is_no_part_of_the_identity() -> None:
    assert inputs(batch_size=7).identity() == inputs(batch_size=9).identity()
    assert inputs(selection=SelectionSettings(nu_error=0.3)).identity() != inputs().identity()


def test_an_activation_that_is_not_finite_stops_the_pass_by_name(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = ScalingSums.add

    def spoilt(sums: ScalingSums, crosscoder: Crosscoder, x: torch.Tensor, **rest: Any) -> Any:
        return original(sums, crosscoder, x.index_fill(0, torch.tensor([3]), torch.nan), **rest)

    monkeypatch.setattr(ScalingSums, "add", spoilt)
    with pytest.raises(ValueError, match=r"activations of model\(s\) \[0, 1\] \(0 is base\) are NaN"):
        scale.run(inputs(), artifacts.parents, tmp_path, QUIET)
    assert not list(tmp_path.iterdir())


def test_sixty_steps_cannot_carry_a_direction_away_and_eight_hundred_can() -> None:
    """60 steps at 1e-3 with 30 of warm-up: the rates sum to about 0.04, times sqrt(64), over 1/sqrt(2)."""
    reach = {}
    for n_steps in (60, 800):
        training = {
            "settings": "TrainingSettings",
            "n_steps": n_steps,
            "learning_rate": 1e-3,
            "warmup_steps": 100,
        }
        metadata = {"inputs": {"training": training}}
        settings = DictionarySettings(n_latents=2)
        reach[n_steps] = scale.training_reach(Crosscoder(settings, n_models=2, d_model=64, metadata=metadata))
    assert reach[60] == pytest.approx(0.45, abs=0.05)
    assert reach[800] > 5
    assert scale.training_reach(Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=64)) is None
