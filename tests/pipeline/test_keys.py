"""Artifact keys stay what they were, so that a store made by an earlier crossdiff is found again.

The keys in keys.json were made with the versions of the stages that stand beside them, and are compared
as if these still held: a stage whose results change gets a new version and needs no edit here. Renaming a
class or a field of settings, or a new field that is no NOT_IDENTITY, shows here.
"""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff.pipeline import planner
from crossdiff.pipeline.plan import plan
from crossdiff.stages import protocol
from tests.composed import experiment

RECORD = Path(__file__).with_name("keys.json")
COMMANDS = {
    "demo": ("experiment=demo", "comparison.n_seeds=1"),
    "demo, live": ("experiment=demo", "comparison.n_seeds=1", "source=live"),
    "demo, induced taxonomy": ("experiment=demo", "comparison.n_seeds=1", "taxonomy=induced"),
    "toy": ("experiment=toy", "comparison.n_seeds=1"),
    **{study: (f"experiment={study}", "size=ci") for study in (
        "behaviour", "causal", "planted", "seed_null", "self_diff", "several", "steering",
    )},
}  # fmt: skip


def own_pair(folder: Path) -> tuple[str, ...]:
    """A pair and a corpus that are nothing but bytes: planning hashes them and reads config.json."""
    config = {"model_type": "llama", "hidden_size": 16, "num_hidden_layers": 2, "intermediate_size": 32}
    for name in ("base", "tuned"):
        (folder / name).mkdir()
        (folder / name / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 4096}))
        (folder / name / "model.safetensors").write_text(name)
    (folder / "chats.jsonl").write_text('{"text": "one"}\n')
    return (
        "model_pair=custom", f"model_pair.base={folder}/base", f"model_pair.tuned={folder}/tuned", "layer=1",
        "corpus=files", f"corpus.paths=[{folder}/chats.jsonl]", "dictionary=toy", "sparsity=toy",
        "training=toy",
    )  # fmt: skip


def keys(*overrides: str) -> list[str]:
    return sorted(f"{step.name} {step.key}" for step in plan(experiment(*overrides)))


@pytest.mark.parametrize("name", ["own pair", *COMMANDS])
def test_a_store_made_before_is_found_again(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = json.loads(RECORD.read_text())
    then = {s.name: replace(s, version=recorded["versions"].get(s.name, 1)) for s in protocol.stages()}
    monkeypatch.setattr(protocol, "stage", then.__getitem__)
    for check in ("check_weights", "check_tokenizers"):  # the pair's weights are four bytes; no tokenizer
        monkeypatch.setattr(planner, check, lambda *_, **__: None)
    assert keys(*(own_pair(tmp_path) if name == "own pair" else COMMANDS[name])) == recorded["keys"][name]
