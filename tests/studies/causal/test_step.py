"""The causal check on a pair whose tuned model differs by one known direction at one block."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.data.corpus import FilesCorpus
from crossdiff.data.corpus import fingerprint as corpus_fingerprint
from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.paired_activations import MaskSettings
from crossdiff.data.tokens import TokenKind, TokenSet
from crossdiff.io.tables import read_json, write_table
from crossdiff.models.load import load_truncated
from crossdiff.models.pair import ModelSettings, fingerprint
from crossdiff.settings import Runtime
from crossdiff.stages import tokens
from crossdiff.stages.activations import open_activations
from crossdiff.studies.causal import CausalInputs
from crossdiff.studies.causal.patched_documents import spread
from crossdiff.studies.causal.step import run
from tests.model_folders import D_MODEL, save_model

LAYER, N_DOCUMENTS, QUIET = 1, 30, Runtime(progress=False)
PLANTED = 39


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Base states lack what latent `PLANTED` writes; other latents write nearly the same in both models."""
    folder = tmp_path_factory.mktemp("causal")
    model = ModelSettings(name="tuned", path=str(save_model(folder / "model", "llama")), dtype="float32")
    token_set = _tokens(folder, model)
    truncated = load_truncated(model, model.path, layers=[LAYER])
    tuned = torch.cat(
        [
            truncated.outputs(_ids(token_set, n)[None], None, layers=[LAYER])[LAYER][0]
            for n in range(N_DOCUMENTS)
        ]
    )
    crosscoder = _crosscoder(tuned)
    code = crosscoder.encode(torch.stack([tuned, tuned], dim=1))
    base = tuned - code[:, PLANTED, None] * crosscoder.decoder[PLANTED, 1]
    _write(folder, crosscoder, token_set, {"harvest_base": base, "harvest_tuned": tuned})
    return {
        name: folder / name for name in ("tokens", "harvest_base", "harvest_tuned", "train", "scale", "model")
    }


def _tokens(folder: Path, model: ModelSettings) -> TokenSet:
    lines = [
        {
            "id": f"d{n}",
            "messages": [
                {"role": "user", "content": f"why {n} the cat sat"},
                {"role": "assistant", "content": f"because {n * 7} the dog ran on the red mat"},
            ],
        }
        for n in range(N_DOCUMENTS)
    ]
    (folder / "corpus.jsonl").write_text("\n".join(map(json.dumps, lines)))
    corpus = FilesCorpus(paths=(str(folder / "corpus.jsonl"),), context=64)
    inputs = tokens.TokensInputs(
        corpus=corpus,
        corpus_fingerprint=corpus_fingerprint(corpus),
        tokenizer=model,
        tokenizer_fingerprint=fingerprint(model),
    )
    (folder / "tokens").mkdir()
    tokens.run(inputs, {}, folder / "tokens", QUIET)
    return TokenSet.open(folder / "tokens")


def _ids(token_set: TokenSet, document: int) -> torch.Tensor:
    start, stop = token_set.offsets[document : document + 2].tolist()
    return token_set.ids[start:stop].long()


def _crosscoder(tuned: torch.Tensor) -> Crosscoder:
    """48 latents along random states; latent `PLANTED` writes to the tuned model only. No scaling."""
    generator = torch.Generator().manual_seed(0)
    found = Crosscoder(DictionarySettings(n_latents=48), n_models=2, d_model=D_MODEL)
    unit = torch.nn.functional.normalize(torch.randn(48, D_MODEL, generator=generator))
    with torch.no_grad():
        found.decoder.copy_(unit[:, None].expand(-1, 2, -1))
        found.decoder[:, 0] *= 0.97
        found.decoder[PLANTED, 0] = 0
        found.encoder.zero_()
        found.encoder[:, 1] = unit  # reads the tuned model
        found.threshold.fill_(0.2)
        found.encoder_bias[0] = -100  # dead
    return found.requires_grad_(requires_grad=False)


def _write(folder: Path, crosscoder: Crosscoder, token_set: TokenSet, x: dict[str, torch.Tensor]) -> None:
    for name, rows in x.items():
        write_harvest(folder / name, token_set, {LAYER: rows.contiguous()}, shard_tokens=500)
    rows = (token_set.kind != TokenKind.BOS) & ~token_set.held_out
    total = torch.stack([part[rows].double().var(0, correction=0).sum() for part in x.values()])
    scale = (total.prod().sqrt() / total).sqrt().float()  # what the check of scalings expects
    with torch.no_grad():
        crosscoder.normaliser.scale.copy_(scale)
        crosscoder.decoder *= scale[:, None]
        crosscoder.encoder /= scale[:, None]
    crosscoder.save(folder / "train" / "crosscoder")
    owner = pd.Series([("tuned" if j == PLANTED else None) for j in range(48)], dtype=object)
    (folder / "scale").mkdir()
    table = pd.DataFrame({"latent": range(48), "exclusive_to": owner})
    write_table(table, folder / "scale" / "latents.parquet", version=1, kind="latents")


def inputs(parents: dict[str, Path], **changes: Any) -> CausalInputs:
    tuned = ModelSettings(name="tuned", path=str(parents["model"]), dtype="float32")
    return CausalInputs(**{"layer": LAYER, "tuned": tuned, "n_documents": 12, "resamples": 200, **changes})


def test_the_planted_latent_closes_the_whole_gap_and_beats_every_matched_draw(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    run(inputs(parents), parents, tmp_path, QUIET)
    rows = pd.read_csv(tmp_path / "causal.csv").set_index(["where", "condition"])
    for where in ("all tokens", "first answer tokens"):
        assert rows.loc[(where, "base"), "closed"] == 0
        assert rows.loc[(where, "exclusive"), "closed"] > 0.99
        assert rows.loc[(where, "tuned"), "kl"] == pytest.approx(0, abs=1e-6)
    found = read_json(tmp_path / "causal.json")
    assert found["n_exclusive"] == 1
    assert found["n_draws"] == 20
    for place in found["places"].values():
        assert place["beaten"] == 20
        assert place["p_value"] == pytest.approx(1 / 21)
        assert place["margin_low"] > 0
    assert found["places"]["first answer tokens"]["n_tokens"] == 12 * 10


def test_patch_energy_is_what_was_added_and_the_shrunk_patch_has_that_of_the_draws(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    """Independent: dense codes of the harvests and the directions in raw units."""
    run(inputs(parents, n_documents=N_DOCUMENTS), parents, tmp_path, QUIET)
    rows = pd.read_csv(tmp_path / "causal.csv").set_index(["where", "condition"]).loc["all tokens"]
    assert rows.loc["base", "energy"] == 0
    assert rows.loc["tuned", "energy"] == 1
    assert rows.loc["exclusive", "energy"] == pytest.approx(1, abs=1e-4)  # x_tuned - x_base is its patch
    draws = rows.loc[[f"random_{i}" for i in range(20)]]
    assert rows.loc["exclusive_equal_energy", "energy"] == pytest.approx(draws["energy"].mean(), rel=1e-4)
    assert rows.loc["exclusive_equal_energy", "closed"] < rows.loc["exclusive", "closed"]
    crosscoder = Crosscoder.load(parents["train"] / "crosscoder")
    activations = open_activations(parents, LAYER, MaskSettings(), device="cpu")
    kept = activations.rows()
    x = activations.read(kept).x
    code = crosscoder.encode(x).detach()
    raw = crosscoder.decoder.detach() / crosscoder.normaliser.scale[:, None]
    added = code.square().sum(0) * (raw[:, 1] - raw[:, 0]).square().sum(1)
    added[PLANTED] = 0
    whole = (x[:, 1] - x[:, 0]).square().sum()
    assert rows.loc["top_energy", "energy"] == pytest.approx(float(added.max() / whole), rel=1e-3)
    place = read_json(tmp_path / "causal.json")["places"]["all tokens"]
    assert place["energy_random_mean"] == pytest.approx(draws["energy"].mean())
    assert place["closed_top_energy"] == pytest.approx(rows.loc["top_energy", "closed"])
    assert place["beaten_at_equal_energy"] <= 20


def test_without_exclusive_latents_it_ends_well_and_says_so(parents: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "scale").mkdir()
    table = pd.DataFrame({"latent": range(48), "exclusive_to": pd.Series([None] * 48, dtype=object)})
    write_table(table, tmp_path / "scale" / "latents.parquet", version=1, kind="latents")
    found = run(inputs(parents), {**parents, "scale": tmp_path / "scale"}, tmp_path, QUIET)
    assert "nothing to patch" in found["sentence"]


def test_exclusive_latents_that_never_fire_in_the_documents_end_well_too(
    parents: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "scale").mkdir()
    owner = pd.Series([("tuned" if j == 0 else None) for j in range(48)], dtype=object)  # dead
    table = pd.DataFrame({"latent": range(48), "exclusive_to": owner})
    write_table(table, tmp_path / "scale" / "latents.parquet", version=1, kind="latents")
    found = run(inputs(parents), {**parents, "scale": tmp_path / "scale"}, tmp_path, QUIET)
    assert "n_documents" in found["sentence"]


def test_documents_come_from_all_over_an_alternating_corpus() -> None:
    """Every second of 399 documents, as even steps would take them, is of one source."""
    chosen = spread(399, 200)
    assert len(chosen) == len(chosen.unique()) == 200
    assert (chosen.diff() > 0).all()
    assert 70 < int((chosen % 2).sum()) < 130
    assert spread(2, 5).tolist() == [0, 1]
