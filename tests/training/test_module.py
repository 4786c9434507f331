"""The Lightning shell adds up to what core computes, in one process and over ranks."""

from __future__ import annotations

from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
from torch import distributed, multiprocessing
from torch.utils.data import DataLoader

from crossdiff.core.latent_scaling import ScalingSums, empty_sums
from crossdiff.data.paired_activations import MaskSettings, PairedActivations
from crossdiff.training.module import LatentScalingModule, add_over_ranks_
from tests.scaling_artifacts import LAYER, Artifacts, build


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("module"))


def opened(artifacts: Artifacts) -> PairedActivations:
    parents = artifacts.parents
    harvests = [parents["harvest_base"], parents["harvest_tuned"]]
    return PairedActivations.open(parents["tokens"], harvests, layer=LAYER, mask=MaskSettings())


def one_pass(artifacts: Artifacts, *, part: slice = slice(None)) -> ScalingSums:
    sums = empty_sums(artifacts.crosscoder, documents=True)
    for batch in list(opened(artifacts).batches(batch_size=500))[part]:
        sums.add(artifacts.crosscoder, batch.x, document=batch.document, template=batch.template)
    return sums


def same(found: ScalingSums, expected: ScalingSums) -> None:
    for name in ("energy", "overlap", "template_energy", "maximum"):
        assert torch.allclose(getattr(found, name), getattr(expected, name), rtol=1e-10, atol=0), name
    assert torch.equal(found.n_active, expected.n_active)
    assert torch.equal(found.documents.counts(), expected.documents.counts())
    assert found.n_tokens == expected.n_tokens
    assert found.fit is not None
    assert expected.fit is not None
    assert found.fit.explained() == pytest.approx(expected.fit.explained())


def test_a_predict_pass_gives_the_sums_of_core(artifacts: Artifacts) -> None:
    module = LatentScalingModule(artifacts.crosscoder)
    batches = DataLoader(list(opened(artifacts).batches(batch_size=500)), batch_size=None)  # type: ignore[arg-type]
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        enable_checkpointing=False,
    )  # fmt: skip
    trainer.predict(module, batches, return_predictions=False)
    assert module.sums is not None
    same(module.sums, one_pass(artifacts))


def rank(number: int, store: str, folder: str) -> None:
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=number, world_size=2)
    artifacts = torch.load(f"{folder}/artifacts.pt", weights_only=False)
    sums = one_pass(artifacts, part=slice(0, 2) if number == 0 else slice(2, None))
    add_over_ranks_(sums)
    torch.save(sums, f"{folder}/sums_{number}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_hold_the_sums_of_one_pass(artifacts: Artifacts, tmp_path: Path) -> None:
    torch.save(artifacts, tmp_path / "artifacts.pt")
    multiprocessing.spawn(rank, args=(str(tmp_path / "store"), str(tmp_path)), nprocs=2)
    for number in range(2):
        found = torch.load(tmp_path / f"sums_{number}.pt", weights_only=False)
        same(found, one_pass(artifacts))
