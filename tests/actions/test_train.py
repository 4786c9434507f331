"""action=train stops at the crosscoders."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.interop import load_dictionary_learning
from tests.test_command_line import crossdiff

PAIR = ("model_pair=toy_pt_it", "corpus=toy", "layer=1", "organism=demo", "dictionary=toy", "training=demo")
SHORT = (
    "organism.pretraining.n_steps=4", "organism.tuning.n_steps=4", "organism.preference.n_steps=4",
    "sparsity=toy", "training.n_steps=12", "training.threshold_batches=2", "progress=false",
)  # fmt: skip


def test_the_plan_ends_with_the_crosscoder(tmp_path: Path) -> None:
    done = crossdiff("action=train", "plan=true", *PAIR, f"store={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert "train toy_pt_it" in done.stdout
    assert "scale" not in done.stdout
    assert "report" not in done.stdout


def test_a_dictionary_of_differences_has_no_report_and_says_how_to_train_it() -> None:
    done = crossdiff(*PAIR, "dictionary.architecture=diff_sae")
    assert done.returncode == 2
    assert "give action=train" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_dictionary_of_differences_is_trained_found_again_and_exported(tmp_path: Path) -> None:
    given = (*PAIR, *SHORT, f"store={tmp_path}/store", "dictionary.architecture=diff_sae")
    done = crossdiff("action=train", *given)
    assert done.returncode == 0, done.stderr
    folder = done.stdout.splitlines()[-1].removeprefix("crosscoder toy_pt_it: ")
    assert Crosscoder.load(folder).decoder.shape == (1024, 1, 96)
    again = crossdiff("action=train", *given)
    assert again.stdout.splitlines()[-1] == done.stdout.splitlines()[-1]
    refused = crossdiff("action=export", "export.what=checkpoint", f"export.folder={tmp_path}/export", *given)
    assert refused.returncode == 2
    assert "architecture=diff_sae has no counterpart there" in refused.stderr
    plain = (*PAIR, *SHORT, f"store={tmp_path}/store")
    assert crossdiff("action=train", *plain).returncode == 0
    exported = crossdiff(
        "action=export", "export.what=checkpoint", f"export.folder={tmp_path}/export", *plain
    )
    assert exported.returncode == 0, exported.stderr
    assert load_dictionary_learning(tmp_path / "export" / "toy_pt_it_1").n_latents == 1024
