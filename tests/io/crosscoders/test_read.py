"""Every readable format against its code formula, and what is refused."""

import json
import math
import pickle
from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.crosscoders.read import read_crosscoder
from crossdiff.io.crosscoders.write import write_crosscoder
from crossdiff.io.interop import load_dictionary_learning, save_dictionary_learning
from tests.published_crosscoders import (
    NORMS,
    POINTS,
    SCALE,
    code_by_hand,
    decoded_by_hand,
    drawn,
    write_crosscode,
    write_neelnanda,
    write_openmoss,
)

SAVED_NORM = [math.sqrt(4) / NORMS[point] for point in POINTS]


def assert_same(crosscoder: Crosscoder, draw, *, scale, gate=None) -> None:
    """Codes, active sets and reconstructions in float64."""
    crosscoder, x = crosscoder.double(), draw["x"].double()
    expected = code_by_hand(draw, scale=scale, gate=gate)
    assert (expected > 0).any()
    assert (expected == 0).any()
    found = crosscoder.encode(x)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(
        crosscoder.decode(found), decoded_by_hand(draw, expected, scale=scale), rtol=1e-6, atol=1e-5
    )


@pytest.mark.parametrize("number", [None, 4])
def test_neelnanda_codes_with_the_given_scale(tmp_path: Path, number: int | None) -> None:
    draw = drawn()
    crosscoder = read_crosscoder(write_neelnanda(tmp_path, draw, number=number), scale=SCALE)
    assert_same(crosscoder, draw, scale=SCALE)
    source = crosscoder.metadata["source"]
    assert source["format"] == "neelnanda"
    assert source["scale_origin"] == "given"
    assert len(source["files"]) == 2


def test_a_scale_is_estimated_from_mean_norms_where_the_file_holds_none(tmp_path: Path) -> None:
    draw = drawn()
    crosscoder = read_crosscoder(write_neelnanda(tmp_path, draw), mean_norms=lambda: [4.0, 5.0])
    assert crosscoder.metadata["source"]["scale_origin"] == "estimated"
    assert_same(crosscoder, draw, scale=(2 / 4, 2 / 5))


def test_a_checkpoint_without_its_scale_is_never_read_as_if_it_were_one(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give scale="):
        read_crosscoder(write_neelnanda(tmp_path, drawn()))
    with pytest.raises(ValueError, match="one positive factor"):
        read_crosscoder(tmp_path, scale=(0.1,))


@pytest.mark.parametrize("activation", ["ReLUActivation", "AnthropicSTEJumpReLUActivation"])
@pytest.mark.parametrize("folded", [True, False])
def test_crosscode_codes(tmp_path: Path, activation: str, folded: bool) -> None:
    draw = drawn()
    folder = write_crosscode(tmp_path, draw, activation=activation, folded=folded)
    crosscoder = read_crosscoder(folder, scale=None if folded else SCALE)
    assert_same(crosscoder, draw, scale=SCALE, gate=draw["gate"] if "Jump" in activation else None)


def test_a_crosscode_topk_has_no_code_of_one_token(tmp_path: Path) -> None:
    folder = write_crosscode(tmp_path, drawn(), activation="BatchTopkActivation")
    with pytest.raises(ValueError, match="stores no threshold"):
        read_crosscoder(folder, scale=SCALE)


def test_openmoss_codes_with_the_norms_of_the_file(tmp_path: Path) -> None:
    draw = drawn()
    crosscoder = read_crosscoder(write_openmoss(tmp_path, draw))
    assert crosscoder.metadata["source"]["scale_origin"] == "file"
    assert_same(crosscoder, draw, scale=SAVED_NORM)


def test_openmoss_weights_for_raw_activations(tmp_path: Path) -> None:
    draw = drawn()
    assert_same(read_crosscoder(write_openmoss(tmp_path, draw, norm="inference")), draw, scale=(1.0, 1.0))


@pytest.mark.parametrize(
    ("change", "said"), [({"act": "jumprelu"}, "act_fn=relu"), ({"norm": "token-wise"}, "every token")]
)
def test_openmoss_that_has_no_counterpart(tmp_path: Path, change, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        read_crosscoder(write_openmoss(tmp_path, drawn(), **change))


def test_our_own_and_dictionary_learning_are_recognised(tmp_path: Path) -> None:
    own = read_crosscoder(write_neelnanda(tmp_path / "theirs", drawn()), scale=SCALE)
    own.save(tmp_path / "own")
    save_dictionary_learning(own, tmp_path / "peer")
    x = drawn()["x"]
    for name, format in (("own", "crossdiff"), ("peer", "dictionary_learning")):
        found = read_crosscoder(tmp_path / name)
        assert found.metadata["source"]["format"] == format
        torch.testing.assert_close(found.encode(x), own.encode(x))
    assert torch.equal(load_dictionary_learning(tmp_path / "peer").encode(x), found.encode(x))
    with pytest.raises(ValueError, match="leave the scale out"):
        read_crosscoder(tmp_path / "own", scale=SCALE)


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    draw = drawn()
    draw["decoder"][2, 1, 3] = math.nan
    with pytest.raises(ValueError, match="1 of 48 values of decoder are NaN"):
        read_crosscoder(write_neelnanda(tmp_path, draw), scale=SCALE)


class Harmful:
    """Touches a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("name", ["cc_weights.pt", "sae_weights.safetensors"])
def test_no_pickle_runs_code(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "there"
    (write_neelnanda if name.endswith(".pt") else write_openmoss)(folder, drawn())
    (folder / name).write_bytes(pickle.dumps(Harmful(tmp_path / "ran"), protocol=2))
    with pytest.raises(ValueError, match="copy it"):
        read_crosscoder(folder, scale=SCALE)
    assert not (tmp_path / "ran").exists()


def test_no_yaml_tag_runs_code(tmp_path: Path) -> None:
    folder = write_crosscode(tmp_path / "there", drawn())
    assert "!!python/tuple" in (folder / "model_cfg.yaml").read_text()
    read_crosscoder(folder, scale=SCALE)
    settings = folder / "model_cfg.yaml"
    settings.write_text(settings.read_text() + f"x: !!python/object/apply:os.mkdir ['{tmp_path / 'ran'}']\n")
    with pytest.raises(ValueError, match="cannot be read"):
        read_crosscoder(folder, scale=SCALE)
    assert not (tmp_path / "ran").exists()


def test_settings_that_contradict_the_weights(tmp_path: Path) -> None:
    folder = write_neelnanda(tmp_path, drawn())
    (folder / "cfg.json").write_text(json.dumps({"d_in": 5, "dict_size": 6}))
    with pytest.raises(ValueError, match="d_in=5"):
        read_crosscoder(folder, scale=SCALE)


def test_an_altered_saelens_config_ends_in_one_message(tmp_path: Path) -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=6), n_models=2, d_model=4)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    crosscoder.threshold.fill_(0.5)
    write_crosscoder(crosscoder, tmp_path, "saelens", layer=3, facts={})
    config = json.loads((tmp_path / "cfg.json").read_text())
    ours = config["metadata"]["crossdiff"]
    for changes in (
        {"d_model": None},
        {"scale": 3},
        {"scale": ["a", "b"]},
        {"scale": [1.0]},
        {"n_models": 0},
        *({name: ...} for name in ("n_models", "d_model", "scale")),
    ):
        kept = {name: value for name, value in (ours | changes).items() if value is not ...}
        altered = config | {"metadata": {"crossdiff": kept}}
        (tmp_path / "cfg.json").write_text(json.dumps(altered))
        with pytest.raises(ValueError, match="export the crosscoder again"):
            read_crosscoder(tmp_path)
    (tmp_path / "cfg.json").write_text(json.dumps({k: v for k, v in config.items() if k != "d_sae"}))
    with pytest.raises(ValueError, match="export the crosscoder again"):
        read_crosscoder(tmp_path)
