"""Ablation: every combination once, penalised kinds without k."""

from types import SimpleNamespace

import pandas as pd

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import L1, BatchTopK, JumpReLU
from crossdiff.studies.ablation import FIGURES, Ablation
from crossdiff.training.settings import TrainingSettings

STUDY = Ablation(
    n_latents=(64, 128), k=(4, 8), sparsities=("batch_topk", "l1"), losses=("norm", "squared"),
    l1=L1(penalty=0.1), jumprelu=JumpReLU(penalty=0.1),
)  # fmt: skip


def test_the_grid_is_complete_and_typed() -> None:
    asked = SimpleNamespace(
        pairs=("pair",), dictionary=DictionarySettings(n_latents=32), training=TrainingSettings(n_steps=10),
        sparsity=BatchTopK(k=4, k_initial=16, anneal_steps=5),
    )  # fmt: skip
    runs = STUDY.runs(asked)  # type: ignore[arg-type]
    assert len(runs) == 2 * 2 * (2 + 1)
    assert runs["l1_64_norm"]["dictionary"].initial_norm == 0.005
    assert runs["batch_topk_k8_128_squared"]["training"].loss == "squared"
    assert runs["batch_topk_k8_128_squared"]["sparsity"] == BatchTopK(k=8, k_initial=32, anneal_steps=5)


def test_the_sentence_names_the_extremes(make_run) -> None:
    runs = {
        "a": make_run("a", {"mathematics": 2}, {}),
        "b": make_run("b", {"mathematics": 40}, {}),
    }
    found = STUDY.analyse(runs, {})
    assert "number 2 (a) to 40 (b), more than counting noise" in found.answer


def test_norms_alone_and_latent_scaling_are_counted_apart() -> None:
    figures = dict.fromkeys(FIGURES, 0) | {"n_exclusive": 1}
    table = pd.DataFrame({"kind": ["tuned_only", "shared", "tuned_only", "base_only", "dead"]})
    run = SimpleNamespace(pairs=("pair",), figures=lambda _: figures, latents=lambda _: table)
    found = STUDY.analyse({"a": run}, {}).numbers["a"]  # type: ignore[dict-item]
    assert (found["n_exclusive"], found["n_by_norm"], found["n_by_norm_base"]) == (1, 2, 1)


def test_equal_counts_have_no_extremes_and_a_missing_fve_is_unknown(make_run) -> None:
    runs = {name: make_run(name, {"mathematics": 4}, {}) for name in ("a", "b")}
    assert "latents number 4 with every one; the worse model's FVE is best" in STUDY.analyse(runs, {}).answer
    for run in runs.values():
        run.figures("pt_it")["fve_base"] = None
    assert STUDY.analyse(runs, {}).answer.endswith("the worse model's FVE is unknown.")
