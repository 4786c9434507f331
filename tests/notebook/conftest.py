"""A results folder over invented artifacts, and a tiny pair of real models with a crosscoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import crossdiff
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.tables import write_json
from tests import report_artifacts
from tests.model_folders import D_MODEL, save_model

PAIRS = ("pt_it", "pt_simpo")


def results_of(root: Path, *, pairs: tuple[str, ...] = PAIRS, **options: Any) -> Path:
    """`<root>/results/demo` as a finished run leaves it, with its steps in `<root>/store`."""
    made = report_artifacts.build(root / "store", pairs=pairs, **options)
    if len(pairs) == 2:
        made.finish("compare", inputs={"reference": pairs[0], "treatment": pairs[1]})
    results = root / "results" / "demo"
    results.mkdir(parents=True)
    steps = []
    for role, folder in made.parents.items():
        stage, _, label = role.partition("_")
        steps.append({"name": f"{stage} {label}".strip(), "key": folder.name, "state": "done"})
    summary = {"version": 1, "settings": {"layer": 2}, "steps": steps, "store": "../../store"}
    write_json(summary, results / "summary.json")
    return results


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return results_of(tmp_path_factory.mktemp("run"))


@pytest.fixture
def run(results: Path) -> Any:
    return crossdiff.open_run(results)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Folders of two tiny models that share a tokenizer."""
    root = tmp_path_factory.mktemp("models")
    return save_model(root / "base", "llama", seed=0), save_model(root / "tuned", "llama", seed=1)


def random_crosscoder(n_latents: int = 64, d_model: int = D_MODEL, n_models: int = 2) -> Crosscoder:
    settings = DictionarySettings(n_latents=n_latents)
    made = Crosscoder(settings, n_models=n_models, d_model=d_model)
    made.initialise_(torch.Generator().manual_seed(0))
    made.threshold.fill_(0.5)
    with torch.no_grad():
        made.encoder_bias.normal_(generator=torch.Generator().manual_seed(1))
    return made.requires_grad_(requires_grad=False)
