"""A user's own two model folders and documents go through without touching our code."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io import artifacts
from tests.actions.test_run import typed
from tests.model_folders import make_tokenizer, save_model
from tests.test_command_line import ROOT, crossdiff

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
def test_two_families_end_in_a_report_by_norms_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    words = (["model", "small", "better"], ["mod", "answer", "than", "agree"])
    wide = make_tokenizer(words=words[0], bos=False)
    save_model(tmp_path / "base", "llama", d_model=48, n_blocks=2, tokenizer=wide)
    save_model(tmp_path / "tuned", "qwen2", n_blocks=2, tokenizer=make_tokenizer(words=words[1]))
    asked = (
        "model_pair=custom", "corpus=files", *SMALL, f"store={tmp_path}/store", "selection=norm",
        f"results_dir={tmp_path}/results", f"model_pair.base={tmp_path}/base",
        f"model_pair.tuned={tmp_path}/tuned", f"corpus.paths=[{write_chats(tmp_path / 'chats.jsonl')}]",
        "model_pair.alignment=characters", "dictionary.architecture=dedicated_feature",
        "dictionary.dedicated_share=0.2", "selection.min_tokens=5", "selection.min_documents=2",
    )  # fmt: skip
    assert typed(monkeypatch, *asked) == 0, capsys.readouterr().err
    results = tmp_path / "results"
    latents = pd.read_parquet(results / "latents.custom.parquet")
    assert latents[["decoder_cosine", "nu_error", "nu_reconstruction", "drift"]].isna().all(axis=None)
    assert {"tuned", "base"} == set(latents["exclusive_to"].dropna())
    page = (results / "report.html").read_text()
    assert "The models are of two families, whose directions cannot be compared" in page
    assert "end where one of the other does; dropped: 80 bos" in page
    (record,) = (tmp_path / "store").glob("documents/*/selection.json")
    vocabularies = [set(make_tokenizer(words=w).get_vocab()) for w in words]
    raised = {"base": set(), "tuned": set()}
    for entry in json.loads(record.read_text())["latents"]:
        for model, logits in entry["logits"].items():
            raised[model] |= {token.replace(" ", "Ġ") for token, _ in logits["top"]}
    for model, own, foreign in (("base", *vocabularies), ("tuned", *vocabularies[::-1])):
        assert raised[model] & (own - foreign), model
        assert not raised[model] & (foreign - own), model
    (folder,) = (tmp_path / "store").glob("train/*/crosscoder")
    crosscoder = Crosscoder.load(folder)
    assert not crosscoder.decoder[:, 1, 32:].any()


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


def change_config(folder: Path, **settings: int) -> None:
    config = folder / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Model folders: base, tuned, and tuned ones with something wrong; two without a chat template."""
    folder = tmp_path_factory.mktemp("models")
    pair(folder, "llama")
    save_model(folder / "other_words", "llama", seed=1, tokenizer=make_tokenizer(words=["zebra", "yak"]))
    for name, seed in (("base_plain", 0), ("tuned_plain", 1)):
        save_model(folder / name, "llama", seed=seed, tokenizer=make_tokenizer(template=None))
    file = save_model(folder / "broken", "llama", seed=1) / "model.safetensors"
    weights = load_file(file)
    weights["model.layers.1.mlp.down_proj.weight"][0, 0] = float("nan")
    save_file(weights, file, metadata={"format": "pt"})
    write_chats(folder / "chats.jsonl", n=30)
    save_model(folder / "cut_config", "llama", seed=1)
    (folder / "cut_config" / "config.json").write_text("{")
    save_model(folder / "wide", "llama", seed=1)
    change_config(folder / "wide", hidden_size=64)
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_config.json").write_text('{"base_model_name_or_path": "my_base"}')
    (folder / "null.jsonl").write_text('{"text": null}\n')
    (folder / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (folder / "empty.jsonl").write_text("")
    (folder / "blank.txt").write_text("   \n\n")
    return folder


MISTAKES = {
    "a layer outside the model": (["layer=9"], ["layer=9 is outside", "0 to 3"]),
    "tokenizers that differ": (["tuned=other_words"], ["need one tokenizer", "models of one family"]),
    "a corpus that is missing": (["corpus=none.jsonl"], ["none.jsonl", "does not exist"]),
    "a corpus that is empty": (["corpus=empty.jsonl"], ["no usable token", "at least one document"]),
    "a corpus without a usable token": (["corpus=blank.txt"], ["no usable token", '"empty": ']),
    "a broken line": (["corpus=broken.jsonl"], ["broken.jsonl:2", "skip_bad"]),
    "chats without a template": (
        ["base=base_plain", "tuned=tuned_plain"],
        ["no chat template", "plain text"],
    ),
    "a hub model out of reach": (["model_pair.tuned=org/none"], ["org/none", "give a folder"]),
    "a folder that is missing": (["base=nowhere"], ["nowhere does not exist", "save_pretrained"]),
    "cuda without CUDA": (["device=cuda"], ["device=cuda", "device=cpu"]),
    "k above the dictionary": (["sparsity.k=200", "sparsity.k_initial=null"], ["k=200", "128 latents"]),
    "an unknown option": (["sparsity=topkk"], ["sparsity=topkk", "did you mean topk"]),
    "an unknown key": (["training.learning_rat=1"], ["learning_rat", "training.learning_rate"]),
    "a config.json that is cut": (
        ["tuned=cut_config"],
        ["cut_config/config.json is no JSON", "save the model"],
    ),
    "a context beyond the model": (
        ["corpus.context=2000"],
        ["corpus.context=2000", "1024 positions", "give corpus.context=1024"],
    ),
    "an adapter without its model": (
        ["tuned=adapter"],
        ["PEFT adapter", "model_pair.tuned=my_base model_pair.tuned_adapter="],
    ),
    "models of two widths": (["tuned=wide"], ["need one d_model", "base has 32", "wide has 64"]),
    "one model twice": (["tuned=base"], ["are one model", "experiment=self_diff"]),
    "more tokens in a batch than asked for": (
        ["corpus.n_tokens=100", "training.batch_size=4096"],
        ["corpus.n_tokens=100", "training.batch_size=4,096"],
    ),
    "a text that is null": (["corpus=null.jsonl"], ["null.jsonl:1: text is null", "corpus.skip_bad=true"]),
    "a mask that leaves nothing": (
        ["mask.skip_first=1000"],
        ["keeps none of the", "mask.skip_first=1000", "loosen it"],
    ),
    "a dictionary that fits no memory": (
        ["dictionary.n_latents=4000000000000"],
        ["GB of memory", "dictionary.n_latents"],
    ),
    "weights that give NaN": (["tuned=broken"], ["tuned at layer 1 has NaN", "document 'chat-0'"]),
}


def spelled(models: Path, given: list[str]) -> list[str]:
    """The command line of a run on these folders; `base=`, `tuned=` and `corpus=` name one of them."""
    settings = {"base": "base", "tuned": "tuned", "corpus": "chats.jsonl"}
    rest = [item for item in given if item.partition("=")[0] not in settings]
    settings |= dict(item.split("=") for item in given if item not in rest)
    return [
        "model_pair=custom", "corpus=files", *SMALL, f"model_pair.base={models / settings['base']}",
        f"model_pair.tuned={models / settings['tuned']}", f"corpus.paths=[{models / settings['corpus']}]",
        *rest,
    ]  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_in_own_input_is_one_message(
    mistake: str,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    given, parts = MISTAKES[mistake]
    folders = (f"store={tmp_path}/store", f"results_dir={tmp_path}/results")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert typed(monkeypatch, *spelled(models, given), *folders) == 2
    told = capfd.readouterr().err
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    assert [part for part in parts if part not in told] == [], told
    assert not (tmp_path / "results").exists()
    for folder in (tmp_path / "store").glob("*/[!.]*"):
        artifacts.verify(folder)


READ_ONLY = 'mount -t tmpfs -o ro tmpfs "$0" && exec "$@"'


def test_a_store_on_a_disk_that_cannot_be_written_is_one_message(models: Path, tmp_path: Path) -> None:
    namespace = ["unshare", "--mount", "--map-root-user", "sh", "-c", READ_ONLY, str(tmp_path)]
    if subprocess.run([*namespace, "true"], capture_output=True).returncode:
        pytest.skip("this machine allows no mount in a namespace of its own (unshare --mount)")
    done = subprocess.run(
        [*namespace, sys.executable, str(ROOT / "run.py"), *spelled(models, []), f"store={tmp_path}/store"],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("error: ") == 1
    assert "Traceback" not in done.stderr
    assert f"{tmp_path}/store" in done.stderr


Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def ended(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that went to its end."""
    store = tmp_path_factory.mktemp("ended") / "store"
    done = crossdiff(*spelled(models, []), f"store={store}", f"results_dir={store.parent}/results")
    assert done.returncode == 0, done.stderr
    return store


def artifact(store: Path, stage: str) -> Path:
    return sorted(path for path in (store / stage).iterdir() if not path.name.startswith("."))[0]


def of_another(change: Callable[[Crosscoder], None]) -> Change:
    """A crosscoder that was trained elsewhere, put into the store with a manifest of its own."""

    def put(store: Path) -> None:
        folder = artifact(store, "train")
        crosscoder = Crosscoder.load(folder / "crosscoder")
        with torch.no_grad():
            change(crosscoder)
        shutil.rmtree(folder / "crosscoder")
        crosscoder.save(folder / "crosscoder")
        artifacts.write_manifest(folder, artifacts.read_manifest(folder))

    return put


def cut_shard(store: Path) -> None:
    shard = sorted(artifact(store, "harvest").rglob("shard_*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-100])


def alter_checkpoint(store: Path) -> None:
    weights = artifact(store, "train") / "crosscoder" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-5] ^= 1
    weights.write_bytes(content)


def cut_manifest(store: Path) -> None:
    manifest = artifact(store, "harvest") / "manifest.json"
    manifest.write_text(manifest.read_text()[:50])


STRANGERS: dict[str, tuple[Change, list[str]]] = {
    "layer": (
        of_another(lambda c: c.metadata["inputs"].update(layer=3)),
        ["trained on layer 3", "have 1", "train again on these"],
    ),
    "tokens": (
        of_another(lambda c: c.metadata.update(token_hash="abc")),
        ["trained on token_hash abc", "train again on these"],
    ),
    "models": (
        of_another(lambda c: c.metadata["parents"].update(harvest_tuned="0123")),
        ["trained on harvests", "'0123'", "train again on these"],
    ),
    "scaling": (
        of_another(lambda c: c.normaliser.scale[1].mul_(1.5)),
        ["scales the models by", "these activations need", "train again on these"],
    ),
    "threshold": (
        of_another(lambda c: c.threshold.fill_(float("nan"))),
        ["no inference threshold", "train it to the end"],
    ),
    "cut shard": (cut_shard, ["harvest", "shard_"]),
    "cut manifest": (cut_manifest, ["harvest", "manifest.json"]),
    "altered checkpoint": (alter_checkpoint, ["train", "weights.safetensors"]),
}


@pytest.mark.slow
@pytest.mark.parametrize("what", STRANGERS)
def test_activations_and_a_crosscoder_that_do_not_belong_together_are_refused(
    what: str,
    ended: Path,
    models: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    store = tmp_path / "store"
    shutil.copytree(ended, store)
    change, parts = STRANGERS[what]
    change(store)
    folders = (f"store={store}", f"results_dir={tmp_path}/results")
    assert typed(monkeypatch, *spelled(models, ["selection.min_tokens=7"]), *folders) == 2
    told = capfd.readouterr().err
    assert told.count("error: ") == 1
    assert "Traceback" not in told
    assert [part for part in parts if part not in told] == [], told
    assert len(list((store / "scale").glob("[!.]*"))) == 1


@pytest.mark.slow
def test_a_selection_that_leaves_nothing_and_too_few_documents_end_in_a_page_that_says_so(
    ended: Path, models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = (f"store={ended}", f"results_dir={tmp_path}/none")
    assert typed(monkeypatch, *spelled(models, ["selection.min_tokens=100000"]), *folders) == 0
    pages = {"none": (tmp_path / "none" / "report.html").read_text()}
    table = pd.read_parquet(tmp_path / "none" / "latents.custom.parquet")
    assert set(table["call"]) <= {"undecided", "not_exclusive"}
    few = [json.loads(line) for line in (models / "chats.jsonl").read_text().splitlines()[:4]]
    rows = [row | {"id": f"few-{n}", "messages": row["messages"] * 12} for n, row in enumerate(few)]
    (models / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    folders = (f"store={tmp_path}/store", f"results_dir={tmp_path}/few")
    asked = [
        "corpus=few.jsonl",
        "training.batch_size=32",
        "selection.min_tokens=1",
        "selection.min_documents=1",
    ]
    assert typed(monkeypatch, *spelled(models, asked), *folders) == 0
    pages["few"] = (tmp_path / "few" / "report.html").read_text()
    table = pd.read_parquet(tmp_path / "few" / "latents.custom.parquet")
    assert set(table["call"]) <= {"undecided", "not_exclusive"}
    assert table["nu_error_low"].isna().all()
    assert "an interval needs 5: there is none here" in pages["few"]
    assert "an interval needs 5" not in pages["none"]
    for page in pages.values():
        assert "0 latents of 128 belong to the tuned model only" in page
        assert "There is no exclusive latent to list" in page
        assert "What stopped the others" in page


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "joblib"])
def test_hydras_own_launchers_run_grid_points_to_their_reports(
    launcher: str, models: Path, tmp_path: Path
) -> None:
    """Both points start at once and share tokens and harvests: one computes them, the other waits for it."""
    folders = (f"store={tmp_path}/store", f"results_dir={tmp_path}/${{seed}}")
    done = crossdiff("-m", f"hydra/launcher={launcher}", *spelled(models, ["seed=0,1"]), *folders)
    assert done.returncode == 0, done.stderr
    pages = [json.loads((tmp_path / seed / "summary.json").read_text()) for seed in "01"]
    for stage in ("tokens", "harvest base", "harvest tuned", "train", "report"):
        states = [step["state"] for page in pages for step in page["steps"] if step["name"].startswith(stage)]
        own = stage in ("train", "report")
        assert sorted(states) == (["done", "done"] if own else ["done", "reused"]), stage
    assert [len(list((tmp_path / "store" / stage).glob("[!.]*"))) for stage in ("harvest", "train")] == [2, 2]
