"""The lexical benchmark on a few latents."""

from __future__ import annotations

from experiments.bench.lexical import main


def test_it_prints_times_and_labels_what_was_planted() -> None:
    found = main(["n_latents=30", "n_documents=8", "n_tokens=40"])
    assert found["n_latents"] == 30
    assert found["cpu_s"] >= 0
    assert found["share_right"] > 0.8
