"""A pass of latent scaling through Lightning: parts of whole documents, and two ranks as one process."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import distributed, multiprocessing

from crossdiff.core.latent_scaling import ScalingSums, empty_sums
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.settings import MaskSettings
from crossdiff.stages import scale
from crossdiff.stages.activations import open_activations
from crossdiff.training.scaling_pass import (
    add_over_ranks_,
    check_documents,
    part_of_rows,
    pass_over,
    scaling_sums,
)
from tests.scaling_artifacts import LAYER, Artifacts, build

INPUTS = scale.ScaleInputs(layer=LAYER, dtype="float64", batch_size=301)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("pass"))


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


def test_one_device_has_the_bits_of_a_plain_loop(artifacts: Artifacts) -> None:
    found, expected = pass_over(artifacts.crosscoder, opened(artifacts), batch_size=500), one_pass(artifacts)
    same(found, expected)
    for name in ("energy", "overlap", "n_active", "maximum", "template_energy"):
        assert torch.equal(getattr(found, name), getattr(expected, name)), name
    found.template_energy.fill_(0)  # no tensor of inference mode


def test_parts_are_runs_of_whole_documents_and_together_all_rows(artifacts: Artifacts) -> None:
    source = open_activations(artifacts.parents, LAYER, MaskSettings())
    for n_parts in (1, 2, 7, 60):
        parts = [part_of_rows(source, part, n_parts) for part in range(n_parts)]
        assert torch.equal(torch.cat(parts), source.rows())
        documents = [set(source.document_of(rows).tolist()) for rows in parts]
        assert sum(map(len, documents)) == len(set.union(*documents)) == 60
        assert max(map(len, parts)) <= len(source.rows()) / n_parts + 40
    with pytest.raises(ValueError, match=r"dispatch.devices=61 shares whole documents"):
        check_documents(source, 61)


def test_a_source_without_rows_is_named(artifacts: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    source = open_activations(artifacts.parents, LAYER, MaskSettings())
    monkeypatch.setattr(source, "rows", lambda: torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="the mask keeps none of the"):
        check_documents(source, 2)


@pytest.mark.parametrize(
    ("number", "ending"), [(signal.SIGTERM, SystemExit), (signal.SIGINT, KeyboardInterrupt)]
)
def test_a_signal_does_what_it_did_before_lightning(
    artifacts: Artifacts, number: signal.Signals, ending: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def sent(*_: object, **_named: object) -> list[object]:
        os.kill(os.getpid(), number)
        return []

    usual = signal.default_int_handler if number == signal.SIGINT else lambda *_: sys.exit(143)
    inherited = signal.signal(number, usual)
    source = opened(artifacts)
    monkeypatch.setattr(source, "batches", sent)  # right before the first row
    try:
        with pytest.raises(ending) as ended:
            pass_over(artifacts.crosscoder, source, batch_size=500)
        assert number == signal.SIGINT or ended.value.code == 143  # type: ignore[attr-defined]
        assert signal.getsignal(number) is usual
    finally:
        signal.signal(number, inherited)


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


def sums(artifacts: Artifacts, n_devices: int) -> ScalingSums:
    both = partial(scale.open_both, INPUTS, artifacts.parents, "cpu")
    return scaling_sums(both, batch_size=301, device="cpu", n_devices=n_devices)[1]


@pytest.mark.slow
def test_two_devices_end_with_the_sums_of_one(artifacts: Artifacts) -> None:
    same(sums(artifacts, 2), sums(artifacts, 1))


@pytest.mark.slow
def test_a_refusal_of_one_rank_reaches_the_caller(tmp_path: Path) -> None:
    broken = build(tmp_path / "broken", n_latents=4)
    shard = next((tmp_path / "broken" / "harvest_base").rglob("shard_*"))
    with shard.open("r+b") as handle:
        handle.seek(-8, 2)
        handle.write(b"\x00\x01\x02\x03\x04\x05\x06\x07")
    with pytest.raises(ValueError, match="altered"):
        sums(broken, 2)
