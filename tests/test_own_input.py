"""A user's own two model folders and documents go through without touching our code."""

import json
from pathlib import Path

import pandas as pd
import pytest

from tests.model_folders import save_model
from tests.test_command_line import crossdiff

SMALL = (
    "dictionary=toy", "dictionary.n_latents=128", "sparsity=toy", "sparsity.k=8", "training=toy",
    "training.n_steps=40", "training.batch_size=128", "device=cpu", "layer=1", "progress=false",
)  # fmt: skip
WORDS = "the model said that a small answer is often better than a long one and we agree".split()


def write_chats(path: Path, *, n: int = 80) -> Path:
    rows = []
    for index in range(n):
        turn = " ".join(WORDS[(index * 7 + step * 3) % len(WORDS)] for step in range(8 + index % 9))
        messages = [{"role": "user", "content": turn}, {"role": "assistant", "content": turn[::-1]}]
        rows.append(json.dumps({"id": f"chat-{index}", "messages": messages}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def pair(folder: Path, architecture: str) -> tuple[str, str]:
    save_model(folder / "base", architecture, seed=0)
    save_model(folder / "tuned", architecture, seed=1)
    return f"model_pair.base={folder}/base", f"model_pair.tuned={folder}/tuned"


def run(tmp_path: Path, *arguments: str):
    return crossdiff(
        "model_pair=custom", "corpus=files", *SMALL, f"store={tmp_path}/store",
        f"results_dir={tmp_path}/results", *arguments,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt_neox"])
def test_two_model_folders_and_chats_end_in_a_report(tmp_path: Path, architecture: str) -> None:
    chats = write_chats(tmp_path / "chats.jsonl")
    done = run(tmp_path, *pair(tmp_path, architecture), f"corpus.paths=[{chats}]")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results"
    assert done.stdout.strip().splitlines()[-1] == f"report: {results}/report.html"
    assert len(pd.read_parquet(results / "latents.custom.parquet")) == 128
    summary = json.loads((results / "summary.json").read_text())
    assert summary["version"] == 1
    assert summary["comparison"] is None
    assert {step["state"] for step in summary["steps"]} == {"done"}
    again = run(tmp_path, *pair(tmp_path, architecture), f"corpus.paths=[{chats}]")
    summary = json.loads((results / "summary.json").read_text())
    assert {step["state"] for step in summary["steps"]} == {"reused"}
    assert "finished earlier" in again.stdout


@pytest.mark.slow
def test_plain_text_files_and_a_folder_are_read(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    for index in range(60):
        text = " ".join(WORDS[(index * 5 + step * 2) % len(WORDS)] for step in range(20))
        (folder / f"{index}.txt").write_text(text)
    done = run(tmp_path, *pair(tmp_path, "llama"), f"corpus.paths=[{folder}]")
    assert done.returncode == 0, done.stderr


def test_mistakes_in_own_input_are_one_message(tmp_path: Path) -> None:
    models = pair(tmp_path, "llama")
    broken = tmp_path / "broken.jsonl"
    broken.write_text('{"text": "fine"}\n{"text": \n')
    chats = write_chats(tmp_path / "chats.jsonl", n=20)
    cases = [
        ((*models, f"corpus.paths=[{tmp_path}/none.jsonl]"), ["none.jsonl", "does not exist"]),
        ((*models, f"corpus.paths=[{broken}]"), ["broken.jsonl:2", "skip_bad"]),
        ((*models, f"corpus.paths=[{chats}]", "layer=9"), ["layer", "9"]),
    ]
    for arguments, parts in cases:
        done = run(tmp_path, *arguments)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert [part for part in parts if part not in done.stderr] == [], done.stderr
