"""Crosscoders and activations that cannot be meant, through the command line: one message and exit code 2."""

from __future__ import annotations

import json
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.interop import save_dictionary_learning
from tests.actions.test_run import typed
from tests.io.crosscoders.test_read import Harmful
from tests.model_folders import D_MODEL, save_model
from tests.published_crosscoders import drawn, write_crosscode, write_neelnanda, write_openmoss

WORDS = "the model said that a small answer is often better than a long one and we agree".split()


def fitting(folder: Path, *, threshold: float = 0.5) -> Crosscoder:
    """Of the models' width, with random directions."""
    made = Crosscoder(DictionarySettings(n_latents=64), n_models=2, d_model=D_MODEL)
    made.initialise_(torch.Generator().manual_seed(0))
    made.threshold.fill_(threshold)
    made.metadata = {"training": {"k": 4}}
    made.save(folder)
    return made


def pickled(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps(Harmful(folder / "ran"), protocol=2))


def own_pickle(folder: Path) -> None:
    fitting(folder)
    pickled(folder, "weights.safetensors")


def openmoss_pickle(folder: Path) -> None:
    write_openmoss(folder, drawn())
    pickled(folder, "sae_weights.safetensors")


def dictionary_pickle(folder: Path) -> None:
    folder.mkdir()
    pickled(folder, "ae.pt")


def yaml_tags(folder: Path) -> None:
    settings = write_crosscode(folder, drawn()) / "model_cfg.yaml"
    settings.write_text(settings.read_text() + f"x: !!python/object/apply:os.mkdir ['{folder}/ran']\n")


def wrong_width(folder: Path) -> None:
    write_neelnanda(folder, drawn())


def nan_weights(folder: Path) -> None:
    draw = drawn()
    draw["decoder"][2, 1, 3] = math.nan
    write_neelnanda(folder, draw)


def never_set(folder: Path) -> None:
    save_dictionary_learning(fitting(folder.parent / "whole"), folder)
    for name in ("model.safetensors", "ae.pt"):
        (folder / name).unlink(missing_ok=True)
    state = torch.load(folder / "model.pt")
    torch.save({**state, "threshold": torch.tensor(-1.0)}, folder / "model.pt")


def nan_threshold(folder: Path) -> None:
    fitting(folder, threshold=math.nan)


def cut(folder: Path) -> None:
    fitting(folder)
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


CROSSCODERS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "a pickle in the place of our safetensors": (own_pickle, ("weights.safetensors",)),
    "a pickle in the place of safetensors": (openmoss_pickle, ("sae_weights.safetensors", "copy it")),
    "a pickle with code in it": (dictionary_pickle, ("ae.pt", "a pickle of more than tensors; copy it")),
    "a yaml with Python tags": (yaml_tags, ("model_cfg.yaml", "cannot be read")),
    "another width": (wrong_width, ("2 models of width 4, the pair has 2 of width 32",)),
    "NaN weights": (nan_weights, ("1 of 48 values of decoder are NaN",)),
    "a threshold that was never set": (never_set, ("no inference threshold", "save the crosscoder again")),
    "a threshold that is NaN": (nan_threshold, ("no inference threshold", "save the crosscoder again")),
    "a file that is cut": (cut, ("weights.safetensors",)),
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A command line without its crosscoder, store and action."""
    root = tmp_path_factory.mktemp("pair")
    base, tuned = (save_model(root / name, "llama", seed=seed) for seed, name in enumerate(("base", "tuned")))
    texts = (" ".join(WORDS[(i * 7 + step * 3) % len(WORDS)] for step in range(20)) for i in range(40))
    (root / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return [
        "model_pair=custom", f"model_pair.base={base}", f"model_pair.tuned={tuned}", "layer=1", "device=cpu",
        "model_pair.dtype=float32", "corpus=files", f"corpus.paths=[{root}/texts.jsonl]", "progress=false",
    ]  # fmt: skip


def refused(told: str, parts: tuple[str, ...]) -> None:
    assert told.count("error: ") == 1, told
    assert "Traceback" not in told
    assert [part for part in parts if part not in told] == [], told


@pytest.mark.parametrize("kind", CROSSCODERS)
def test_a_crosscoder_that_cannot_be_meant_is_one_message(
    kind: str, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    make, parts = CROSSCODERS[kind]
    make(tmp_path / "there")
    assert typed(monkeypatch, *pair, f"crosscoder={tmp_path}/there", f"store={tmp_path}/store") == 2
    refused(capfd.readouterr().err, parts)
    assert not (tmp_path / "there" / "ran").exists()
    assert not (tmp_path / "store" / "tokens").exists()


def test_a_crosscoder_of_other_models_is_read_with_a_warning_and_its_figures(
    pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    fitting(tmp_path / "there")
    asked = (*pair, f"crosscoder={tmp_path}/there", f"store={tmp_path}/store", "action=train")
    assert typed(monkeypatch, *asked) == 0
    told = capfd.readouterr().out
    assert "FVE base -" in told
    assert "WARNING: it explains less than 0.5 of the variance, so these are hardly the activations" in told


@pytest.mark.parametrize("empty", ["file", "document"])
def test_texts_of_rows_that_are_empty_are_one_message(
    empty: str, pair, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "tuned"):
        np.save(tmp_path / f"{name}.npy", np.ones((9, D_MODEL), dtype="float32"))
    rows = {"file": "", "document": '{"text": "the model"}\n{"text": ""}\n'}
    (tmp_path / "texts.jsonl").write_text(rows[empty])
    named = f"source.activations={{base: {tmp_path}/base.npy, tuned: {tmp_path}/tuned.npy}}"
    asked = [
        *(item for item in pair if not item.startswith("corpus")), "source=files", named, "training=ci",
        f"source.texts={tmp_path}/texts.jsonl", f"store={tmp_path}/store", "training.batch_size=4",
    ]  # fmt: skip
    assert typed(monkeypatch, *asked) == 2
    refused(capfd.readouterr().err, ("texts.jsonl",))
