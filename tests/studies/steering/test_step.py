"""Steering a model whose planted latent writes one word of a phrase, and one that writes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.tables import read_json, write_table
from crossdiff.models.pair import ModelSettings
from crossdiff.organisms.language import BAG_SLOTS, build_language, vocabulary
from crossdiff.organisms.models import build_model, build_tokenizer
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime
from crossdiff.studies.steering.step import SteerInputs, run

TOY = ToySettings(d_model=64, n_heads=2, n_layers=2, d_mlp=16)
QUIET = Runtime(progress=False)
PEAK, SCALE = 4.0, 0.25
CATEGORY = build_language(TOY)[0]
BAG = [word for slot in BAG_SLOTS for word in CATEGORY.behaviours[0].bag[slot]]


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Latent 0 writes towards the first word of the phrase, latent 1 nowhere in particular."""
    folder = tmp_path_factory.mktemp("steer")
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    model = build_model(TOY, tokenizer)
    unit = torch.linalg.qr(torch.randn(TOY.d_model, 2)).Q.T  # latent 1 writes at a right angle
    with torch.no_grad():
        word = tokenizer.convert_tokens_to_ids(f"▁{BAG[0]}")
        model.get_input_embeddings().weight[word] = 3 * unit[0]
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    crosscoder = Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=TOY.d_model)
    with torch.no_grad():
        crosscoder.decoder[:, 1] = unit * SCALE * 50 / PEAK  # dose 1 is 50 long in raw units
        crosscoder.normaliser.scale.copy_(torch.tensor([1.0, SCALE]))
    crosscoder.save(folder / "train" / "crosscoder")
    _write_documents(folder / "documents")
    _write_annotations(folder / "annotate")
    return {name: folder / name for name in ("train", "documents", "annotate", "model")}


def _write_documents(folder: Path) -> None:
    folder.mkdir()
    tokens = [f" {word}" for word in BAG[:4]] + ["."]
    shared = {"subset": "explain", "source": "top", "tokens": tokens, "peak": 1}
    rows = [{"latent": n, **shared, "peak_code": PEAK - rank} for n in (0, 1) for rank in range(3)]
    write_table(pd.DataFrame(rows), folder / "examples.parquet", version=1, kind="examples")


def _write_annotations(folder: Path) -> None:
    folder.mkdir()
    rows = [
        {"pair": "pt_it", "latent": n, "role": "exclusive_tuned", "category": CATEGORY.name} for n in (0, 1)
    ]
    rows += [
        {"pair": "pt_it", "latent": 2, "role": "exclusive_tuned", "category": None},
        {"pair": "pt_it", "latent": 3, "role": "exclusive_base", "category": CATEGORY.name},
        {"pair": "other", "latent": 4, "role": "exclusive_tuned", "category": CATEGORY.name},
    ]
    (folder / "annotations.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def inputs(parents: dict[str, Path], **changes: Any) -> SteerInputs:
    model = ModelSettings(name="it", path=str(parents["model"]), dtype="float32")
    defaults = {
        "pair": "pt_it", "layer": 1, "model": model, "fingerprint": "", "toy": TOY, "doses": (0.5, 1.0),
        "n_latents": 2, "n_prompts": 6, "n_new_tokens": 4,
    }  # fmt: skip
    return SteerInputs(**{**defaults, **changes})


def test_the_planted_latent_brings_out_its_phrase_and_random_directions_do_not(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    found = run(inputs(parents), parents, tmp_path, QUIET)
    assert found == {"n_exclusive": 3, "n_in_category": 2, "n_matched": 2, "n_answers": 2 * 7 * 12}
    rates = pd.read_csv(tmp_path / "steering.csv").set_index(["latent", "direction", "dose", "place"])
    for place in ("own", "neutral"):
        assert rates.loc[(0, "latent", 1.0, place), "shown"] == 6
        assert rates.loc[(0, "latent", 0.0, place), "shown"] == 0
        assert rates.loc[(0, "random_0", 1.0, place), "shown"] <= 1
        assert rates.loc[(1, "latent", 1.0, place), "shown"] <= 1
    record = read_json(tmp_path / "steering.json")
    assert [row["norm"] for row in record["latents"]] == pytest.approx([50.0, 50.0])
    assert [row["target"] for row in record["latents"]] == [f"{CATEGORY.name} 1"] * 2


def test_a_latents_answers_do_not_depend_on_how_many_others_are_steered(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    for name, n_latents in (("one", 1), ("two", 2), ("again", 2)):
        (tmp_path / name).mkdir()
        run(inputs(parents, n_latents=n_latents), parents, tmp_path / name, QUIET)
    one, two, again = ((tmp_path / name / "answers.jsonl").read_text() for name in ("one", "two", "again"))
    assert two == again
    assert two.startswith(one)
    assert one != two


def test_without_labelled_latents_nothing_is_steered_and_the_model_is_not_opened(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    found = run(inputs(parents, pair="nobody"), {**parents, "model": tmp_path}, tmp_path, QUIET)
    assert found == {"n_exclusive": 0, "n_in_category": 0, "n_matched": 0, "n_answers": 0}
    assert read_json(tmp_path / "steering.json")["latents"] == []
    assert len(pd.read_csv(tmp_path / "steering.csv")) == 0
