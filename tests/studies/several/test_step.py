"""A crosscoder over three models on small finished harvests."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import empty_sums
from crossdiff.core.latent_table import Scaled
from crossdiff.core.sparsity import BatchTopK
from crossdiff.io.tables import read_json, read_table
from crossdiff.settings import Runtime
from crossdiff.stages.train import TrainInputs
from crossdiff.studies.several.step import (
    SeveralInputs,
    exclusive_counts,
    model_table,
    run,
    shared_by_all_but,
)
from crossdiff.training.settings import TrainingSettings
from tests.scaling_artifacts import LAYER, build


def test_three_harvests_make_one_crosscoder_and_a_row_per_latent_and_model(tmp_path: Path) -> None:
    found = build(tmp_path / "parents").parents
    parents = {
        "tokens": found["tokens"],
        "harvest_base": found["harvest_base"],
        "harvest_tuned_1": found["harvest_tuned"],
        "harvest_tuned_2": found["harvest_tuned"],
    }
    training = TrainingSettings(n_steps=30, batch_size=256, learning_rate=3e-3, warmup_steps=5)
    train = TrainInputs(
        layer=LAYER, dictionary=DictionarySettings(n_latents=32), sparsity=BatchTopK(k=4), training=training
    )
    draft = tmp_path / "draft"
    draft.mkdir()
    run(SeveralInputs(train=train, models=("pt", "it", "simpo")), parents, draft, Runtime(progress=False))
    assert Crosscoder.load(draft / "crosscoder").n_models == 3
    table = read_table(draft / "latents.parquet", kind="latents_by_model")
    assert len(table) == 3 * 32
    record = read_json(draft / "several.json")
    assert set(record["exclusive"]) == set(record["fve"]) == {"pt", "it", "simpo"}
    # the second and the third model are one and the same
    assert record["fve"]["it"] == pytest.approx(record["fve"]["simpo"], rel=1e-4)
    assert record["exclusive"]["it"]["simpo"] == record["exclusive"]["simpo"]["it"] == 0


NAMES = ("pt", "it", "simpo")
HELD_BY = ((0, 1, 2), (1, 2), (2,), (1,), (0,))
"""Latent -> the models that hold it."""


@pytest.fixture(scope="module")
def scaled() -> Scaled:
    """Latent j writes along axis j in the models that hold it, which truly have it there and nowhere else."""
    generator = torch.Generator().manual_seed(0)
    n = len(HELD_BY)
    crosscoder = Crosscoder(DictionarySettings(n_latents=n), n_models=3, d_model=n)
    x = 0.01 * torch.randn(3000, 3, n, generator=generator)
    strength = (torch.rand(3000, n, generator=generator) + 0.5) * (
        torch.rand(3000, n, generator=generator) < 0.3
    )
    with torch.no_grad():
        for latent, models in enumerate(HELD_BY):
            for model in models:
                crosscoder.decoder[latent, model, latent] = 1
                crosscoder.encoder[latent, model, latent] = 1 / len(models)
                x[:, model, latent] += strength[:, latent]
        crosscoder.threshold.fill_(0.3)
    sums = empty_sums(crosscoder, documents=True)
    with torch.no_grad():
        sums.add(crosscoder, x, document=torch.arange(3000) // 20)
    return Scaled.of(crosscoder.decoder, sums)


def test_every_latent_is_exclusive_to_its_holders_against_the_others(scaled: Scaled) -> None:
    table = model_table(scaled, NAMES, SelectionSettings()).set_index(["latent", "model"])
    for latent, holders in enumerate(HELD_BY):
        for own, name in enumerate(NAMES):
            for other, other_name in enumerate(NAMES):
                if own == other:
                    assert table.loc[(latent, name), f"call_{other_name}"] is None
                    continue
                found = table.loc[(latent, name), f"call_{other_name}"] == "exclusive"
                assert found == (own in holders and other not in holders), (latent, name, other_name)


def test_the_long_table_has_a_row_per_latent_and_model_and_own_ratios_are_missing(scaled: Scaled) -> None:
    table = model_table(scaled, NAMES, SelectionSettings())
    assert len(table) == len(HELD_BY) * 3
    assert table[["latent", "model"]].drop_duplicates().shape[0] == len(table)
    own = table[table["model"] == "it"]
    assert own["nu_error_it"].isna().all()
    # latent 1 is held by it and simpo alike
    assert own.set_index("latent").loc[1, "nu_error_simpo"] == pytest.approx(1.0, abs=0.02)
    assert own.set_index("latent").loc[1, "nu_error_pt"] == pytest.approx(0.0, abs=0.02)


def test_counts_per_model_and_what_a_model_alone_lacks(scaled: Scaled) -> None:
    table = model_table(scaled, NAMES, SelectionSettings())
    assert exclusive_counts(table, NAMES) == {
        "pt": {"it": 1, "simpo": 1, "all others": 1},
        "it": {"pt": 2, "simpo": 1, "all others": 1},
        "simpo": {"pt": 2, "it": 1, "all others": 1},
    }
    assert shared_by_all_but(table, NAMES) == {"pt": 1, "it": 0, "simpo": 0}
