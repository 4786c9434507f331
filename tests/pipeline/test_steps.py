"""Layers of one sweep share one forward pass per model, and are the artifacts of single runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crossdiff.dispatch.local import run_steps
from crossdiff.models.load import TruncatedModel
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step, merge
from crossdiff.settings import Runtime
from tests.composed import experiment
from tests.model_folders import save_model
from tests.stages.test_harvest import harvest_files, write_corpus


def harvest_steps(folder: Path, *layers: int) -> list[Step]:
    """Tokens and harvests of the merged plans of one grid point per layer."""
    overrides = [
        "model_pair=custom",
        f"model_pair.base={folder}/base",
        f"model_pair.tuned={folder}/tuned",
        "model_pair.dtype=float32",
        "corpus=files",
        f"corpus.paths=[{folder}/corpus.jsonl]",
        "source.shard_tokens=300",
    ]
    plans = [plan(experiment(*overrides, f"layer={layer}")) for layer in layers]
    return [step for step in merge(plans) if step.stage in ("tokens", "harvest")]


def test_a_sweep_over_layers_forwards_each_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, name in enumerate(("base", "tuned")):
        save_model(tmp_path / name, "llama", seed=seed)
    write_corpus(tmp_path / "corpus.jsonl")
    passes: list[tuple[int, ...]] = []
    plain = TruncatedModel.outputs

    def counted(self: Any, ids: torch.Tensor, positions: Any, *, layers: Any, **more: Any) -> Any:
        passes.append(tuple(layers))
        return plain(self, ids, positions, layers=layers, **more)

    monkeypatch.setattr(TruncatedModel, "outputs", counted)
    counts, made = {}, {}
    for layers in ((1,), (2,), (1, 2)):
        passes.clear()
        store = tmp_path / f"store_{len(counts)}"
        outcomes = run_steps(harvest_steps(tmp_path, *layers), Runtime(store=store, progress=False))
        assert {outcome.state for outcome in outcomes} == {"done"}
        counts[layers] = len(passes)
        for step in harvest_steps(tmp_path, *layers):
            made[layers, step.label, step.key] = step.folder(store)
    assert counts[1,] == counts[2,] == counts[1, 2]
    assert (1, 2) in passes
    together = {key: folder for (layers, _, key), folder in made.items() if layers == (1, 2)}
    assert len(together) == 5
    for (layers, label, key), folder in made.items():
        if len(layers) == 1 and label in ("base", "tuned"):
            alone, shared = harvest_files(folder), harvest_files(together[key])
            del alone["manifest.json"], shared["manifest.json"]
            assert alone == shared, (layers, label)
