"""A pass of latent scaling through Lightning: parts of whole documents, and two ranks as one process."""

from __future__ import annotations

import os
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from crossdiff.core.latent_scaling import ScalingSums
from crossdiff.data.settings import MaskSettings
from crossdiff.stages import scale
from crossdiff.stages.activations import open_activations
from crossdiff.training.scaling_pass import check_documents, part_of_rows, pass_over, scaling_sums
from tests.scaling_artifacts import LAYER, Artifacts, build
from tests.training.test_module import one_pass, opened, same

INPUTS = scale.ScaleInputs(layer=LAYER, dtype="float64", batch_size=301)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("pass"))


def test_one_device_has_the_bits_of_a_plain_loop(artifacts: Artifacts) -> None:
    found, expected = pass_over(artifacts.crosscoder, opened(artifacts), batch_size=500), one_pass(artifacts)
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
