"""Rows of a harvest are those of each document alone, or the model is refused, for models of any kind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from crossdiff.data.harvest.job import HarvestJob
from crossdiff.data.harvest.read import HarvestedLayer
from crossdiff.data.harvest.run import run_job
from crossdiff.data.harvest.write import read_record
from crossdiff.data.settings import CacheSource
from crossdiff.data.tokens import TokenSet, write_token_set
from crossdiff.models.load import TruncatedModel
from crossdiff.models.pair import ModelSettings
from tests.model_folders import make_tokenizer, save_model
from tests.odd_models import hidden_states, save_odd

LENGTHS = (30, 5, 9, 21, 3, 16, 17, 30, 12, 1)


def token_set(folder: Path, *, highest: int = 300) -> TokenSet:
    generator = torch.Generator().manual_seed(5)
    ids = torch.randint(10, highest, (sum(LENGTHS),), generator=generator)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    made = write_token_set(
        folder,
        documents=[(f"d{n}", "s") for n in range(len(LENGTHS))],
        ids=ids,
        offsets=offsets,
        kind=torch.zeros(len(ids)),
    )
    make_tokenizer().save_pretrained(folder / "tokenizer")
    return made


def harvest(folder: Path, model: Path, *, layer: int = 1, batching: str = "pack", **changes: Any):
    """Rows of a finished harvest, document by document, and its figures."""
    tokens = token_set(folder / "tokens", highest=changes.pop("highest", 300))
    settings = ModelSettings(name="m", path=str(model), **{"dtype": "float32", **changes})
    job = HarvestJob(
        model=settings,
        path=str(model),
        fingerprint="x",
        layers=(layer,),
        source=CacheSource(batching=batching, batch_tokens=128),  # type: ignore[arg-type]
        tokens=folder / "tokens",
        folder=folder / "harvest",
        progress=False,
    )
    figures = run_job(job)
    rows = HarvestedLayer.open(job.folder, layer, read_record(job.folder, layer))
    return tokens, rows.rows(torch.arange(tokens.n_tokens)).split(list(LENGTHS)), figures


@pytest.mark.parametrize("batching", ["pack", "bucket"])
@pytest.mark.parametrize(
    "kind", ["few positions", "longrope", "dynamic", "residuals scaled by depth", "experts in some blocks"]
)
def test_rows_are_those_of_the_document_alone(kind: str, batching: str, tmp_path: Path) -> None:
    model = save_odd(tmp_path / "model", kind)
    tokens, rows, _ = harvest(tmp_path, model, batching=batching)
    for document, (found, ids) in enumerate(zip(rows, tokens.ids.split(list(LENGTHS)), strict=True)):
        expected = hidden_states(model, ids[None].long())[2][0]
        torch.testing.assert_close(
            found, expected, rtol=1e-3, atol=1e-4, msg=lambda m, d=document: f"{d}: {m}"
        )


def test_longrope_rows_differ_between_short_and_long_factors(tmp_path: Path) -> None:
    """The test above sees something: the same tokens with long factors are elsewhere."""
    model = save_odd(tmp_path / "model", "longrope")
    ids = torch.arange(10, 40)[None]
    short, long = hidden_states(model, ids[:, :16])[2][0], hidden_states(model, ids)[2][0, :16]
    assert float(((short - long).norm(dim=1) / short.norm(dim=1))[4:].max()) > 0.01


def test_a_leaking_model_is_refused_when_packed_and_right_in_buckets(tmp_path: Path) -> None:
    model = save_odd(tmp_path / "model", "state space")
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(ValueError, match=r"mixes documents .*move its.*source.batching=bucket"):
            harvest(tmp_path / dtype, model, dtype=dtype)
    tokens, rows, _ = harvest(tmp_path, model, batching="bucket")
    expected = hidden_states(model, tokens.ids[None, :30].long())[1][0]
    torch.testing.assert_close(rows[0], expected, rtol=1e-3, atol=1e-4)


def test_a_model_that_looks_to_the_right_has_its_padding_masked(tmp_path: Path) -> None:
    model = save_odd(tmp_path / "model", "looks to the right")
    tokens, rows, _ = harvest(tmp_path, model, batching="bucket")
    for found, ids in zip(rows, tokens.ids.split(list(LENGTHS)), strict=True):
        expected = hidden_states(model, ids[None].long())[2][0]
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_a_model_of_several_streams_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[4, .*several residual streams .*choose a model with one"):
        harvest(tmp_path, save_odd(tmp_path / "model", "streams"))


def test_a_large_row_hides_no_error_of_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = save_model(tmp_path / "model", "llama")
    whole = TruncatedModel.outputs

    def outputs(self: TruncatedModel, ids: torch.Tensor, *args: Any, **options: Any):
        """One row of a document is 10,000 times the others, which move by 20 % with what lies around."""
        states = whole(self, ids, *args, **options)
        moved = 1 + 0.2 * (ids.sum(dim=1, keepdim=True) % 2)[..., None]
        big = torch.ones(ids.shape[1])
        big[:: ids.shape[1] // 2] = 1e4
        return {layer: x * moved * big[None, :, None] for layer, x in states.items()}

    monkeypatch.setattr(TruncatedModel, "outputs", outputs)
    with pytest.raises(ValueError, match="mixes documents"):
        harvest(tmp_path, model)


def test_tokens_that_a_model_has_no_embedding_for_are_named(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama")
    with pytest.raises(ValueError, match=r"tokens of the corpus .* beyond the 512 embeddings .*resize_token"):
        harvest(tmp_path, model, highest=600)


def test_untrained_embeddings_that_are_read_are_counted(tmp_path: Path) -> None:
    model = save_model(tmp_path / "model", "llama")
    n_known = len(make_tokenizer())
    tokens, _, figures = harvest(tmp_path, model, highest=512)
    n_beyond = int((tokens.ids >= n_known).sum())
    assert n_beyond
    assert any(f"{n_beyond:,} tokens of the corpus" in notice for notice in figures["notices"])


def test_the_weights_that_were_read_and_their_precision_are_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = save_model(tmp_path / "model", "llama")
    _, _, figures = harvest(tmp_path, model, dtype="bfloat16")
    assert figures["weights"] == "model.safetensors"
    assert any("saved in float32 and were read in bfloat16" in notice for notice in figures["notices"])
    assert "harvest m: m: its weights are saved in float32" in capsys.readouterr().out
