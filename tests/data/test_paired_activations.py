"""Paired activations: what comes back is what was harvested, row for row."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Literal

import pytest
import torch

from crossdiff.data import paired_activations as shards_module
from crossdiff.data.harvest.read import HarvestedLayer
from crossdiff.data.harvest.write import Storage, write_harvest
from crossdiff.data.paired_activations import MaskSettings, PairedActivations
from crossdiff.data.shard_files import ShardFile
from crossdiff.data.tokens import TokenKind, write_token_set

N_DOCUMENTS, LENGTH, D_MODEL = 60, 40, 8


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """A token set and two harvests whose rows name their token: x[i] = i + model / 2 in every component."""
    n_tokens = N_DOCUMENTS * LENGTH
    kind = torch.full((N_DOCUMENTS, LENGTH), int(TokenKind.TEXT), dtype=torch.uint8)
    kind[:, 0] = TokenKind.BOS
    kind[:, 1:3] = TokenKind.TEMPLATE
    tokens = write_token_set(
        tmp_path / "tokens",
        documents=[(f"doc{n}", "test") for n in range(N_DOCUMENTS)],
        ids=torch.arange(n_tokens) % 7,
        offsets=torch.arange(N_DOCUMENTS + 1) * LENGTH,
        kind=kind.flatten(),
    )
    for model, name in enumerate(("base", "tuned")):
        x = (torch.arange(n_tokens) + model / 2)[:, None].expand(-1, D_MODEL).clone()
        write_harvest(tmp_path / name, tokens, {3: x}, shard_tokens=500)
    return [tmp_path / name for name in ("tokens", "base", "tuned")]


def opened(folders: list[Path], **mask: object) -> PairedActivations:
    return PairedActivations.open(folders[0], folders[1:], layer=3, mask=MaskSettings(**mask))


def test_rows_come_back_in_the_order_asked_for(folders: list[Path]) -> None:
    batch = opened(folders).read(torch.tensor([2399, 0, 501, 499]))
    assert batch.x.shape == (4, 2, D_MODEL)
    assert batch.x[:, 0, 0].tolist() == [2399, 0, 501, 499]
    assert batch.x[:, 1, 0].tolist() == [2399.5, 0.5, 501.5, 499.5]
    assert batch.document.tolist() == [59, 0, 12, 12]
    assert batch.template.tolist() == [False, False, False, False]


def test_no_spans_are_no_rows(folders: list[Path]) -> None:
    x, scale = opened(folders).layers[0].read_spans([])
    assert x.shape == (0, D_MODEL)
    assert scale is None


def test_default_mask_drops_bos_and_no_template_drops_control_tokens_too(folders: list[Path]) -> None:
    assert len(opened(folders).rows()) == N_DOCUMENTS * (LENGTH - 1)
    assert len(opened(folders, mask="no_template").rows()) == N_DOCUMENTS * (LENGTH - 3)
    assert len(opened(folders, skip_first=10).rows()) == N_DOCUMENTS * (LENGTH - 10)


def test_a_mask_that_keeps_nothing_says_what_each_rule_drops(folders: list[Path]) -> None:
    counts = r"none of the 2,400 tokens \(mask.mask=no_template drops 180, mask.skip_first=40 2,400"
    with pytest.raises(ValueError, match=counts):
        opened(folders, mask="no_template", skip_first=LENGTH)
    with pytest.raises(ValueError, match=r"mask.outlier_norm=1e-09 2,400\); loosen it"):
        opened(folders, outlier_norm=1e-9, skip_first=1)


@pytest.mark.parametrize("wrong", [{"skip_first": -1}, {"outlier_norm": 0.0}])
def test_a_mask_without_a_meaning_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        MaskSettings(**wrong)


def test_outlier_norm_drops_rows_above_a_multiple_of_the_median_norm(folders: list[Path]) -> None:
    kept = opened(folders, outlier_norm=1.5).rows()
    assert kept.max() == int(1.5 * 1199)


def test_splits_are_disjoint_by_document_and_cover_everything(folders: list[Path]) -> None:
    data = opened(folders)
    train, validation = (set(data.read(data.rows(s)).document.tolist()) for s in ("train", "validation"))
    assert not train & validation
    assert len(train | validation) == N_DOCUMENTS
    assert 1 <= len(validation) <= 10


def test_an_epoch_visits_every_training_row_once_and_the_next_in_another_order(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for window_bytes in (1 << 30, 60_000):
        monkeypatch.setattr(shards_module, "WINDOW_BYTES", window_bytes)
        data = opened(folders)
        n_train = len(data.rows("train"))
        rows = torch.cat(
            [data.training_batch(n, seed=1, batch_size=100).row for n in range(2 * n_train // 100 + 1)]
        )
        first, second = rows[:n_train], rows[n_train : 2 * n_train]
        assert sorted(first.tolist()) == data.rows("train").tolist() == sorted(second.tolist())
        assert not torch.equal(first, second)
        assert Counter(first.tolist()).most_common(1)[0][1] == 1


def test_a_training_batch_depends_on_its_address_alone(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "WINDOW_BYTES", 60_000)
    forward, backward = opened(folders), opened(folders)
    ahead = [forward.training_batch(n, seed=5, batch_size=64) for n in range(50)]
    for number in reversed(range(50)):
        again = backward.training_batch(number, seed=5, batch_size=64)
        assert torch.equal(again.row, ahead[number].row)
        assert torch.equal(again.x, ahead[number].x)
        assert torch.equal(again.x[:, 0, 0].long(), again.row)
    assert not torch.equal(forward.training_batch(0, seed=6, batch_size=64).row, ahead[0].row)


@pytest.mark.parametrize("pass_bytes", [1 << 28, 40_000])
@pytest.mark.parametrize("split", ["validation", "all"])
def test_corpus_order_batches_hold_every_kept_row_once(
    folders: list[Path], monkeypatch: pytest.MonkeyPatch, pass_bytes: int, split: Literal["validation", "all"]
) -> None:
    monkeypatch.setattr(shards_module, "PASS_BYTES", pass_bytes)
    data = opened(folders)
    batches = list(data.batches(split=split, batch_size=7))
    rows = torch.cat([batch.row for batch in batches])
    assert rows.tolist() == data.rows(split).tolist()
    assert torch.equal(torch.cat([batch.x for batch in batches])[:, 0, 0].long(), rows)
    assert {len(batch.row) for batch in batches[:-1]} == {7}


@pytest.mark.parametrize("pass_bytes", [1 << 28, 4_000])
def test_chosen_rows_come_in_corpus_order_and_only_their_documents_are_read(
    folders: list[Path], pass_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards_module, "PASS_BYTES", pass_bytes)
    read: list[tuple[int, int]] = []
    read_spans = HarvestedLayer.read_spans

    def counted(layer: HarvestedLayer, spans: list[tuple[int, int]], buffer: torch.Tensor | None = None):
        read.extend(spans)
        return read_spans(layer, spans, buffer)

    monkeypatch.setattr(HarvestedLayer, "read_spans", counted)
    rows = torch.tensor([2100, 90, 85, 2130, 1300])
    batches = list(opened(folders).batches_of(rows, batch_size=2))
    assert torch.cat([batch.row for batch in batches]).tolist() == [85, 90, 1300, 2100, 2130]
    assert torch.cat([batch.x[:, 1, 0] for batch in batches]).tolist() == [85.5, 90.5, 1300.5, 2100.5, 2130.5]
    documents = [(start, start + LENGTH) for start in (80, 1280, 2080, 2120)]
    assert sorted(read) == sorted(2 * documents)


@pytest.mark.parametrize("mask", [{}, {"mask": "no_template"}, {"skip_first": 5}])
def test_statistics_are_those_of_the_kept_training_rows(folders: list[Path], mask: dict) -> None:
    data = opened(folders, **mask)
    mean, variance = data.statistics()
    x = data.read(data.rows("train")).x.double()
    assert mean.dtype == torch.float64
    torch.testing.assert_close(mean, x.mean(0), rtol=1e-12, atol=0)
    torch.testing.assert_close(variance, x.var(0, correction=0), rtol=1e-12, atol=0)


def test_harvests_of_other_tokens_are_refused(folders: list[Path], tmp_path: Path) -> None:
    other = write_token_set(
        tmp_path / "other",
        documents=[("x", "test")],
        ids=torch.arange(5),
        offsets=torch.tensor([0, 5]),
        kind=torch.zeros(5),
    )
    write_harvest(tmp_path / "wrong", other, {3: torch.zeros(5, D_MODEL)})
    with pytest.raises(ValueError, match="need one token set"):
        PairedActivations.open(folders[0], [folders[1], tmp_path / "wrong"], layer=3)


def test_a_layer_that_was_not_harvested_is_refused(folders: list[Path]) -> None:
    with pytest.raises(ValueError, match=r"layer=4 is not in .* has layers \[3\]"):
        PairedActivations.open(folders[0], folders[1:], layer=4)


def test_a_cut_shard_is_refused_when_opened(folders: list[Path]) -> None:
    shard = sorted((folders[1] / "layer_3").iterdir())[1]
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"cut or altered.*run the same command again"):
        opened(folders)


def flip(path: Path, byte: int) -> None:
    """Flip one bit, in place and without a trace in size."""
    with path.open("r+b") as handle:
        handle.seek(byte)
        (value,) = handle.read(1)
        handle.seek(byte)
        handle.write(bytes([value ^ 4]))


@pytest.mark.parametrize("storage", ["bfloat16", "int8"])
def test_a_flipped_bit_is_noticed_when_its_row_is_read(folders: list[Path], storage: Storage) -> None:
    from crossdiff.data.tokens import TokenSet

    tokens = TokenSet.open(folders[0])
    x = torch.randn(tokens.n_tokens, D_MODEL, generator=torch.Generator().manual_seed(0))
    write_harvest(folders[1], tokens, {3: x}, storage=storage, shard_tokens=500)
    shard = ShardFile.open(sorted((folders[1] / "layer_3").glob("shard_*"))[1])
    row = 7
    flip(shard.path, shard.byte_offset("x") + row * D_MODEL * shard.dtype("x").itemsize + 3)
    data = PairedActivations.open(folders[0], folders[1:2], layer=3)
    data.read(torch.arange(100))
    first_row = int(shard.metadata["first_row"])
    for reading in (
        lambda: data.read(torch.tensor([first_row + row])),
        lambda: list(data.batches(batch_size=100)),
        lambda: data.training_batch(0, seed=0, batch_size=100),
    ):
        with pytest.raises(ValueError, match=r"shard_00001.safetensors was altered: 1 rows .*run the same"):
            reading()


def test_int8_rows_differ_by_at_most_half_a_step(folders: list[Path], tmp_path: Path) -> None:
    from crossdiff.data.tokens import TokenSet

    tokens = TokenSet.open(folders[0])
    x = torch.randn(tokens.n_tokens, D_MODEL, generator=torch.Generator().manual_seed(0))
    write_harvest(tmp_path / "small", tokens, {3: x}, storage="int8", shard_tokens=500)
    data = PairedActivations.open(folders[0], [tmp_path / "small"], layer=3)
    step = x.abs().amax(1) / 127
    assert ((data.read(torch.arange(len(x))).x[:, 0] - x).abs().amax(1) <= step / 2 + 1e-6).all()
    batch = data.training_batch(0, seed=0, batch_size=100)
    torch.testing.assert_close(batch.x, data.read(batch.row).x)


MANY_SHARDS = """
import resource, sys
from pathlib import Path
import torch
resource.setrlimit(resource.RLIMIT_NOFILE, (160, 160))
from crossdiff.data.paired_activations import MaskSettings, PairedActivations
data = PairedActivations.open(
    Path(sys.argv[1]), [Path(p) for p in sys.argv[2:]], layer=3, mask=MaskSettings(outlier_norm=1e6)
)
data.layers[0].moments(), data.layers[1].moments(), data.statistics()
assert data.read(torch.arange(data.n_rows)).x[:, 1, 0].equal(torch.arange(data.n_rows) + 0.5)
n_train, size = len(data.rows("train")), 100
rows = [data.training_batch(n, seed=0, batch_size=size).row for n in range(-(-n_train // size))]
assert len(torch.cat(rows)[:n_train].unique()) == n_train
assert sum(len(batch.row) for batch in data.batches(batch_size=size)) == len(data.rows())
data.close()
print(len(data.layers[0].shards))
"""


def test_a_harvest_may_have_more_shards_than_a_process_may_have_files_open(tmp_path: Path) -> None:
    tokens = write_token_set(
        tmp_path / "tokens",
        documents=[(f"doc{n}", "test") for n in range(250)],
        ids=torch.arange(750) % 7,
        offsets=torch.arange(251) * 3,
        kind=torch.zeros(750, dtype=torch.uint8),
    )
    for model, name in enumerate(("base", "tuned")):
        x = (torch.arange(750) + model / 2)[:, None].expand(-1, 4).clone()
        write_harvest(tmp_path / name, tokens, {3: x}, shard_tokens=3)
    folders = [str(tmp_path / name) for name in ("tokens", "base", "tuned")]
    command = [sys.executable, "-c", MANY_SHARDS, *folders]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert (done.stdout, done.returncode) == ("250\n", 0), done.stderr[-2000:]
