"""A pair that brings its crosscoder: what is planned, and what is refused before anything runs."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.stages.import_crosscoder import ImportInputs
from tests.composed import experiment
from tests.pipeline.test_plan import PAIR, changed, steps

ROOT = Path(__file__).resolve().parents[2]
TWO = ("experiment=demo", "comparison.n_seeds=1")


def saved(folder: Path, *, d_model: int, n_models: int = 2) -> Path:
    """A crosscoder of the toy's width with a threshold."""
    crosscoder = Crosscoder(DictionarySettings(n_latents=32), n_models=n_models, d_model=d_model)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    crosscoder.threshold.fill_(0.5)
    crosscoder.save(folder)
    return folder


def width() -> int:
    """Of the toy models."""
    return experiment(*TWO).organism.d_model


def test_a_crosscoder_of_one_pair_takes_the_place_of_its_training(tmp_path: Path) -> None:
    folder = saved(tmp_path, d_model=width())
    before = steps(*TWO)
    after = steps(*TWO, f"comparison.treatment.crosscoder={folder}")
    assert changed(before, after) == {"train", "scale", "documents", "match", "annotate", "compare", "report"}
    kept, read = (step for step in after if step.stage == "train")
    assert kept.key in {step.key for step in before}
    assert isinstance(read.inputs, ImportInputs)


def test_a_single_pair_takes_it_from_the_top_or_from_the_pair(tmp_path: Path) -> None:
    folder = saved(tmp_path, d_model=width())
    top, inside = steps(*PAIR, f"crosscoder={folder}"), steps(*PAIR, f"model_pair.crosscoder={folder}")
    assert [step.key for step in top] == [step.key for step in inside]
    assert isinstance(next(step for step in top if step.stage == "train").inputs, ImportInputs)


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path / "fits", d_model=width())
    treatment = f"comparison.treatment.crosscoder={folder}"
    for overrides, said in (
        ((*TWO, f"crosscoder={folder}"), "one crosscoder and a comparison has two pairs"),
        (("experiment=demo", treatment, "comparison.n_seeds=2"), "differ in their seed"),
        (("experiment=self_diff", treatment), "trains its crosscoders"),
        ((*PAIR, "model_pair.crosscoder_scale=[1,2]"), "name it with crosscoder="),
        ((*TWO, treatment, "dictionary.architecture=diff_sae"), "compares latents by sign"),
        ((*PAIR, f"crosscoder={saved(tmp_path / 'wide', d_model=width() + 1)}"), "the pair has 2 of width"),
        ((*PAIR, f"crosscoder={tmp_path}"), "has no crosscoder that can be read"),
    ):
        with pytest.raises(ValueError, match=said):
            steps(*overrides)


def test_the_command_line_ends_in_one_message(tmp_path: Path) -> None:
    folder = saved(tmp_path / "three", d_model=width(), n_models=3)
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *PAIR, f"crosscoder={folder}", f"store={tmp_path}/store"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "reads 3 models" in done.stderr
    assert not (tmp_path / "store").exists()


def test_training_that_goes_on_is_another_step_known_by_content(tmp_path: Path) -> None:
    fits = ("dictionary.n_latents=32", "dictionary.code_norm=sum", "sparsity.k=4")
    before = steps(*PAIR, *fits)
    here, there = (
        steps(*PAIR, *fits, f"training.start={saved(tmp_path / n, d_model=width())}") for n in "ab"
    )
    assert changed(before, here) == {"train", "scale", "documents", "annotate", "report"}
    assert [step.key for step in here] == [step.key for step in there]
    with pytest.raises(ValueError, match=r"give dictionary\.n_latents=32"):
        steps(*PAIR, f"training.start={tmp_path / 'a'}")
