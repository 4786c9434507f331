"""Rows of two families: the right rows at one width, none without a counterpart, and training on them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from crossdiff.core.decoder_norms import decoder_norms
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK, TopK
from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.paired_activations import MaskSettings, PairedActivations
from crossdiff.data.tokens import ALIGNED, PLACES, TokenKind, TokenSet, write_token_set
from crossdiff.training.run import fit
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.trainer import RunFolder, TrainingRun

N_DOCUMENTS, LENGTHS, WIDTHS, LAYER = 80, (40, 29), (24, 16), 3
N_FEATURES, BASE_ONLY, TUNED_ONLY = 12, 0, 1


def token_set(folder: Path, length: int) -> TokenSet:
    kind = torch.full((N_DOCUMENTS, length), int(TokenKind.TEXT), dtype=torch.uint8)
    kind[:, 0] = TokenKind.BOS
    return write_token_set(
        folder,
        documents=[(f"doc{n}", "test") for n in range(N_DOCUMENTS)],
        ids=torch.arange(N_DOCUMENTS * length) % 7,
        offsets=torch.arange(N_DOCUMENTS + 1) * length,
        kind=kind.flatten(),
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The features of a text at its characters, read by two models: one feature is known to one of them.

    The tuned model's tokens are shown; token t of a document ends at character 3 t, of the base at 4 t.
    """
    folder = tmp_path_factory.mktemp("families")
    generator = torch.Generator().manual_seed(0)
    shown, other = (
        token_set(folder / "tokens", LENGTHS[0]),
        token_set(folder / "tokens" / ALIGNED, LENGTHS[1]),
    )
    place = torch.full((N_DOCUMENTS, LENGTHS[0]), -1)
    place[:, 4::4] = torch.arange(N_DOCUMENTS)[:, None] * LENGTHS[1] + torch.arange(3, LENGTHS[1], 3)
    save_file({"place": place.flatten()}, folder / "tokens" / ALIGNED / PLACES)
    on = torch.rand(N_DOCUMENTS, 128, N_FEATURES, generator=generator) < 0.2
    features = on * (1 + torch.rand(on.shape, generator=generator))
    for name, tokens, step, width, unknown in (
        ("base", other, 4, WIDTHS[0], TUNED_ONLY),
        ("tuned", shown, 3, WIDTHS[1], BASE_ONLY),
    ):
        directions = torch.linalg.qr(torch.randn(width, width, generator=generator)).Q[:N_FEATURES]
        directions[unknown] = 0
        read = features[:, ::step][:, : tokens.n_tokens // N_DOCUMENTS].flatten(0, 1)
        write_harvest(folder / name, tokens, {LAYER: 3 * read @ directions + 0.5}, shard_tokens=500)
    return [folder / name for name in ("tokens", "base", "tuned")]


def opened(folders: list[Path], **mask: object) -> PairedActivations:
    return PairedActivations.open(folders[0], folders[1:], layer=LAYER, mask=MaskSettings(**mask))


def test_rows_are_those_of_the_places_and_the_narrower_model_is_filled_with_zeros(
    folders: list[Path],
) -> None:
    paired = opened(folders)
    base, tuned = paired.layers
    assert (paired.d_model, paired.widths, len(paired.rows())) == (24, [24, 16], N_DOCUMENTS * 9)
    rows = torch.tensor([44, 4, 8])  # document 1 token 4, document 0 tokens 4 and 8
    x = paired.read(rows).x
    assert torch.equal(x[:, 0], base.harvested.rows(torch.tensor([32, 3, 6])))  # type: ignore[attr-defined]
    assert torch.equal(x[:, 1, :16], tuned.harvested.rows(rows))  # type: ignore[attr-defined]
    assert not x[:, 1, 16:].any()
    assert base.rows(torch.tensor([5])).isnan().all()
    assert base.norms().isnan().sum() == N_DOCUMENTS * 31
    assert base.place(5).endswith("token 5 has no counterpart")
    assert base.place(44).endswith(f"row {32}")


def test_the_first_tokens_of_either_model_are_skipped(folders: list[Path]) -> None:
    """The shown token 4 of a document is the other model's token 3."""
    counts = [len(opened(folders, skip_first=n).rows()) / N_DOCUMENTS for n in (3, 4, 6, 7)]
    assert counts == [9, 8, 8, 7]


def test_every_way_of_reading_gives_the_same_rows(folders: list[Path]) -> None:
    paired = opened(folders)
    passed = [*paired.batches(batch_size=100)]
    assert torch.equal(torch.cat([batch.row for batch in passed]), paired.rows())
    assert torch.equal(torch.cat([batch.x for batch in passed]), paired.read(paired.rows()).x)
    batch = paired.training_batch(1, seed=0, batch_size=64)
    assert torch.equal(batch.x, paired.read(batch.row).x)
    assert batch.x.isfinite().all()
    x, _ = paired.layers[0].read_spans([(80, 120), (0, 40)])
    both = torch.cat([torch.arange(80, 120), torch.arange(40)])
    assert torch.equal(x.nan_to_num(-1), paired.layers[0].rows(both).nan_to_num(-1))
    paired.close()


def test_statistics_are_those_of_the_kept_training_rows(folders: list[Path]) -> None:
    paired = opened(folders, outlier_norm=10)
    mean, variance = paired.statistics()
    x = paired.read(paired.rows("train")).x.double()
    torch.testing.assert_close(mean, x.mean(0))
    torch.testing.assert_close(variance, x.var(0, unbiased=False))


def test_a_harvest_of_other_tokens_is_refused_and_a_mask_counts_what_alignment_drops(
    folders: list[Path], tmp_path: Path
) -> None:
    x = torch.zeros(N_DOCUMENTS * 5, 4)
    write_harvest(tmp_path / "x", token_set(tmp_path / "t", 5), {LAYER: x}, shard_tokens=500)
    with pytest.raises(ValueError, match=r"was harvested on tokens .*harvest this"):
        opened([folders[0], tmp_path / "x", folders[2]])
    with pytest.raises(ValueError, match=r"the alignment drops 2,480\); loosen it"):
        opened(folders, skip_first=40)


def trained(paired: PairedActivations, folder: Path, *, dictionary: dict | None = None, **changes: object):
    sparsity = changes.pop("sparsity", BatchTopK(k=3))
    training = {"n_steps": 300, "batch_size": 128, "learning_rate": 5e-3, "warmup_steps": 10} | changes
    run = TrainingRun(
        dictionary=DictionarySettings(n_latents=24, **(dictionary or {})), sparsity=sparsity,  # type: ignore[arg-type]
        training=TrainingSettings(**training), seed=0, progress=False,
    )  # fmt: skip
    return fit(run, paired, RunFolder(folder))


def test_planted_features_are_shared_or_of_one_model_and_nothing_leaves_the_width(
    folders: list[Path], tmp_path: Path
) -> None:
    paired = opened(folders)
    crosscoder, figures = trained(paired, tmp_path)
    assert min(figures["fve_base"], figures["fve_tuned"]) > 0.99
    for weights in (crosscoder.encoder, crosscoder.decoder, crosscoder.decoder_bias):
        assert not weights[..., 1, 16:].any()
        assert weights[..., 0, 16:].any()
    code = crosscoder.encode(paired.read(paired.rows()).x)
    alive = (code > 0).sum(0) > 50
    kinds = decoder_norms(crosscoder).delta_norm[alive]
    counts = [int(((kinds >= low) & (kinds <= high)).sum()) for low, high in ((0, 0.1), (0.4, 0.6), (0.9, 1))]
    assert counts[0] >= 1
    assert counts[2] >= 1
    assert counts[1] >= 10  # features that both models know
    paired.close()


@pytest.mark.parametrize(
    "kind",
    [
        {"dictionary": {"architecture": "dedicated_feature", "dedicated_share": 0.1}},
        {"sparsity": TopK(k=3), "step": "dense", "accumulate": 2},
        {"decoder_bias": "geometric_median", "loss": "squared", "auxiliary": 1.0, "dead_after_tokens": 256},
    ],
)
def test_columns_beyond_the_width_stay_exactly_zero(folders: list[Path], tmp_path: Path, kind: dict) -> None:
    paired = opened(folders)
    crosscoder, _ = trained(paired, tmp_path, n_steps=40, **kind)
    for weights in (crosscoder.encoder, crosscoder.decoder, crosscoder.decoder_bias):
        assert not weights[..., 1, 16:].any()
    paired.close()


def test_a_resumed_run_keeps_them_zero(folders: list[Path], tmp_path: Path) -> None:
    paired, n_read = opened(folders), 0
    whole, _ = trained(paired, tmp_path / "whole", n_steps=40)

    class Stopped(PairedActivations):
        def training_batch(self, number: int, **how):
            nonlocal n_read
            n_read += 1
            if n_read == 30:
                raise KeyboardInterrupt
            return super().training_batch(number, **how)

    stopped = Stopped(paired.token_set, paired.layers, paired.mask)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        trained(stopped, tmp_path / "parts", n_steps=40, checkpoint_every=10)
    again, _ = trained(paired, tmp_path / "parts", n_steps=40, checkpoint_every=10)
    assert torch.equal(again.decoder, whole.decoder)
    assert not again.decoder[:, 1, 16:].any()
    paired.close()
