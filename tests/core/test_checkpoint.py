import json
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi

from crossdiff.core import checkpoint
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    crosscoder = Crosscoder(
        DictionarySettings(n_latents=20, code_norm="mixed", architecture="dedicated"),
        n_models=2,
        d_model=4,
        metadata={"training": {"fve_base": 0.9}, "parents": {"tokens": "abc"}},
    )
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    crosscoder.normaliser.mean.normal_()
    crosscoder.threshold.fill_(0.25)
    crosscoder.save(tmp_path / "crosscoder")
    return tmp_path / "crosscoder"


def test_everything_survives_a_round_trip(saved: Path, tmp_path: Path) -> None:
    first = Crosscoder.load(saved)
    first.save(tmp_path / "again")
    second = Crosscoder.load(tmp_path / "again")
    assert second.settings == first.settings
    assert second.metadata["training"] == {"fve_base": 0.9}
    assert float(second.threshold) == 0.25
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name]), name


def test_an_unset_threshold_and_a_gate_survive_a_round_trip(tmp_path: Path) -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=5), n_models=3, d_model=4)
    crosscoder.add_gate_(0.2)
    crosscoder.save(tmp_path)
    loaded = Crosscoder.load(tmp_path)
    assert bool(loaded.threshold.isnan())
    assert loaded.log_gate is not None
    torch.testing.assert_close(loaded.log_gate.exp(), torch.full((5,), 0.2))


def test_a_cut_weights_file_is_refused(saved: Path) -> None:
    weights = saved / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"weights.safetensors was cut or altered"):
        Crosscoder.load(saved)


def test_an_altered_byte_of_the_weights_is_refused(saved: Path) -> None:
    weights = saved / checkpoint.WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match=r"sha256"):
        Crosscoder.load(saved)


def test_a_missing_weights_file_is_refused(saved: Path) -> None:
    (saved / checkpoint.WEIGHTS).unlink()
    with pytest.raises(ValueError, match=r"weights.safetensors is missing"):
        Crosscoder.load(saved)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "no JSON"),
        (lambda text: text.replace('"mixed"', '"sum"'), "was altered"),
        (lambda text: json.dumps({"trainer": {"dict_class": "CrossCoder"}}), "load_dictionary_learning"),
        (lambda text: text.replace('"version": 1', '"version": 99'), "version 99"),
    ],
)
def test_a_damaged_or_foreign_config_is_refused(saved: Path, damage, message: str) -> None:
    config = saved / checkpoint.CONFIG
    config.write_text(damage(config.read_text()))
    with pytest.raises(ValueError, match=message):
        Crosscoder.load(saved)


def test_a_folder_without_a_crosscoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"config.json is missing"):
        Crosscoder.load(tmp_path)


def test_an_unreachable_hub_id_says_how_to_go_on() -> None:
    with pytest.raises(ValueError, match="neither a folder with a crosscoder nor a reachable hub repository"):
        Crosscoder.load("nobody/no-such-crosscoder")


def test_load_reads_what_the_hub_gives(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda hub_id, **_: str(saved))
    assert float(Crosscoder.load("someone/crosscoder").threshold) == 0.25


def test_push_uploads_both_files_and_the_card_of_a_checked_folder(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(HfApi, "create_repo", lambda self, hub_id, **k: calls.append((hub_id, k["private"])))
    monkeypatch.setattr(HfApi, "upload_folder", lambda self, **k: calls.append(k["allow_patterns"]) or "url")
    assert checkpoint.push(saved, "someone/crosscoder") == "url"
    assert calls == [("someone/crosscoder", True), [checkpoint.WEIGHTS, checkpoint.CONFIG, "README.md"]]
