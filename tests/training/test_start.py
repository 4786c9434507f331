"""Training that goes on from a crosscoder."""

from pathlib import Path

import pytest

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, JumpReLU
from crossdiff.training.run import RunFolder, TrainingRun, fit
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.start import read_start
from tests.planted_source import PlantedSource
from tests.scaling_artifacts import random_crosscoder

DICTIONARY = DictionarySettings(n_latents=64)


def run(folder: Path, *, n_steps: int, learning_rate: float, start: Path | None = None):
    settings = TrainingSettings(
        n_steps=n_steps, batch_size=256, learning_rate=learning_rate, warmup_steps=5, threshold_batches=5,
        start=None if start is None else str(start),
    )  # fmt: skip
    asked = TrainingRun(
        dictionary=DICTIONARY, sparsity=BatchTopK(k=4), training=settings, seed=0, progress=False
    )
    return fit(asked, PlantedSource(), RunFolder(folder))


def test_it_begins_with_what_the_crosscoder_knows(tmp_path: Path) -> None:
    """One step at a negligible rate: FVE stays, where a fresh start has next to none."""
    trained, figures = run(tmp_path / "first", n_steps=150, learning_rate=3e-3)
    trained.save(tmp_path / "theirs")
    _, fresh = run(tmp_path / "fresh", n_steps=1, learning_rate=1e-9)
    further, found = run(tmp_path / "on", n_steps=1, learning_rate=1e-9, start=tmp_path / "theirs")
    assert figures["fve_tuned"] > fresh["fve_tuned"] + 0.2
    assert found["fve_base"] == pytest.approx(figures["fve_base"], abs=0.01)
    assert found["fve_tuned"] == pytest.approx(figures["fve_tuned"], abs=0.01)
    assert float(further.threshold) == pytest.approx(float(trained.threshold), rel=0.1)


def test_another_shape_or_kind_is_refused(tmp_path: Path) -> None:
    crosscoder = random_crosscoder(32, 8, seed=1)
    crosscoder.save(tmp_path / "plain")
    crosscoder.add_gate_(0.1)
    crosscoder.save(tmp_path / "gated")
    k, shape = BatchTopK(k=4), {"n_models": 2, "d_model": 8}
    asked = DictionarySettings(n_latents=32)
    plain, gated = str(tmp_path / "plain"), str(tmp_path / "gated")
    assert isinstance(read_start(plain, asked, k, **shape), Crosscoder)
    assert read_start(plain, asked, JumpReLU(penalty=0.02), **shape).log_gate is not None
    for path, dictionary, sizes, said in (
        (plain, asked, {"n_models": 2, "d_model": 9}, "2 models of width 8, these are 2 of width 9"),
        (plain, DictionarySettings(n_latents=33), shape, "give dictionary.n_latents=32"),
        (plain, asked.model_copy(update={"code_norm": "concat"}), shape, "give dictionary.code_norm=sum"),
        (gated, asked, shape, "give sparsity=jumprelu"),
    ):
        with pytest.raises(ValueError, match=said):
            read_start(path, dictionary, k, **sizes)
