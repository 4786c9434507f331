"""The live source end to end: a crosscoder trained from running models is the one trained from the cache."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.test_command_line import crossdiff
from tests.test_own_input import SMALL, pair, write_chats


@pytest.mark.slow
def test_training_from_running_models_ends_where_training_from_the_cache_ends(tmp_path: Path) -> None:
    chats = write_chats(tmp_path / "chats.jsonl")
    figures = {}
    for source in ("cache", "live"):
        store = tmp_path / source
        done = crossdiff(
            "model_pair=custom", "model_pair.dtype=float32", *pair(tmp_path, "llama"), "corpus=files",
            f"corpus.paths=[{chats}]", *SMALL, f"source={source}", "action=train", f"store={store}",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        (manifest,) = (store / "train").glob("*/manifest.json")
        counts = json.loads(manifest.read_text())["counts"]
        figures[source] = [counts["fve_base"], counts["fve_tuned"], counts["l0"]]
        n_shards = len(list(store.rglob("shard_*.safetensors")))
        assert (n_shards > 0) == (source == "cache")
    print(figures)
    assert figures["live"] == pytest.approx(figures["cache"], rel=1e-2)
