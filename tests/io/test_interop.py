"""Rules of `dictionary_learning` checkpoints, against an independent implementation of their encoder."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.interop import load_dictionary_learning, save_dictionary_learning

N_MODELS, D_MODEL, N_LATENTS = 2, 6, 20


def peer_state(**changes) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    std = random(N_MODELS, D_MODEL).abs() + 0.5
    state = {
        "encoder.weight": random(N_MODELS, D_MODEL, N_LATENTS),
        "encoder.bias": random(N_LATENTS),
        "decoder.weight": random(N_MODELS, N_LATENTS, D_MODEL),
        "decoder.bias": random(N_MODELS, D_MODEL),
        "code_normalization_id": torch.tensor(1),
        "activation_mean": random(N_MODELS, D_MODEL),
        "activation_std": std,
        "activation_global_scale": 3.0 / (std.square().sum(1) + 1e-8).sqrt(),
        "target_rms": torch.tensor(3.0),
        "k": torch.tensor(5, dtype=torch.int),
        "threshold": torch.tensor(4.0),
    }
    state.update(changes)
    return {name: value for name, value in state.items() if value is not None}


def peer_forward(state: dict[str, torch.Tensor], x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Code and raw reconstruction as BatchTopKCrossCoder computes them, written with loops over models."""
    known = not bool(state["activation_mean"].isnan().any()) if "activation_mean" in state else False
    scale = state["target_rms"] / (state["activation_std"].square().sum(1) + 1e-8).sqrt() if known else None
    xn = (x - state["activation_mean"]) * scale[:, None] if scale is not None else x
    pre = sum(xn[:, m] @ state["encoder.weight"][m] for m in range(N_MODELS)) + state["encoder.bias"]
    norms = state["decoder.weight"].norm(dim=2)
    both = state["decoder.weight"].permute(1, 0, 2).flatten(1).norm(dim=1)
    factor = {
        1: norms.sum(0),
        2: both,
        3: both + 0.1 * norms.sum(0),
        4: torch.ones(N_LATENTS),
    }[int(state["code_normalization_id"])]
    code = pre.relu()
    if "threshold" in state:
        code = code * (code * factor > state["threshold"])
    x_hat = (
        torch.stack([code @ state["decoder.weight"][m] for m in range(N_MODELS)], 1) + state["decoder.bias"]
    )
    return code, x_hat / scale[:, None] + state["activation_mean"] if scale is not None else x_hat


def inputs() -> torch.Tensor:
    return torch.randn(30, N_MODELS, D_MODEL, generator=torch.Generator().manual_seed(3)) * 2


def written(folder: Path, state: dict[str, torch.Tensor], name: str = "model.pt") -> Path:
    path = folder / name
    save_file(state, path) if path.suffix == ".safetensors" else torch.save(state, path)
    return path


def assert_same_function(crosscoder: Crosscoder, state: dict[str, torch.Tensor]) -> None:
    code, x_hat = peer_forward(state, inputs())
    torch.testing.assert_close(crosscoder.encode(inputs()), code, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(crosscoder.decode(code), x_hat, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["model.pt", "model.safetensors"])
@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_batch_top_k_crosscoder_computes_the_same_after_loading(
    name: str, number: int, tmp_path: Path
) -> None:
    state = peer_state(code_normalization_id=torch.tensor(number))
    crosscoder = load_dictionary_learning(written(tmp_path, state, name))
    assert crosscoder.settings.code_norm == {1: "sum", 2: "concat", 3: "mixed", 4: "none"}[number]
    assert_same_function(crosscoder, state)


def test_a_folder_is_read_too_and_its_config_is_not_trusted(tmp_path: Path) -> None:
    written(tmp_path, peer_state())
    (tmp_path / "config.json").write_text(json.dumps({"k": 1024, "trainer": {"dict_class": "CrossCoder"}}))
    assert load_dictionary_learning(tmp_path).metadata["k"] == 5


def test_a_threshold_that_was_never_set_loads_as_nan_and_encode_asks_for_one(tmp_path: Path) -> None:
    crosscoder = load_dictionary_learning(written(tmp_path, peer_state(threshold=torch.tensor(-1.0))))
    assert math.isnan(float(crosscoder.threshold))
    with pytest.raises(ValueError, match="threshold is not set"):
        crosscoder.encode(inputs())
    assert crosscoder.encode(inputs(), threshold=4.0).shape == (30, N_LATENTS)


def test_a_crosscoder_without_k_has_relu_codes(tmp_path: Path) -> None:
    state = peer_state(k=None, threshold=None)
    crosscoder = load_dictionary_learning(written(tmp_path, state))
    assert float(crosscoder.threshold) == 0
    assert_same_function(crosscoder, state)


def test_codes_per_model_are_refused(tmp_path: Path) -> None:
    state = peer_state(code_normalization_id=torch.tensor(5), threshold=torch.tensor([1.0, 1.0]))
    with pytest.raises(ValueError, match="selects latents per model"):
        load_dictionary_learning(written(tmp_path, state))


@pytest.mark.parametrize("absent", [True, False])
def test_nan_or_absent_statistics_mean_no_normaliser(absent: bool, tmp_path: Path) -> None:
    nothing = None if absent else torch.full((N_MODELS, D_MODEL), math.nan)
    names = [
        "activation_mean",
        "activation_std",
        *(["activation_global_scale", "target_rms"] if absent else []),
    ]
    changes = dict.fromkeys(names, nothing)
    if not absent:
        changes["activation_global_scale"] = torch.ones(N_MODELS)
    state = peer_state(**changes)
    assert_same_function(load_dictionary_learning(written(tmp_path, state)), state)


def test_a_checkpoint_without_code_normalization_id_uses_the_sum(tmp_path: Path) -> None:
    crosscoder = load_dictionary_learning(written(tmp_path, peer_state(code_normalization_id=None)))
    assert crosscoder.settings.code_norm == "sum"


@pytest.mark.parametrize("is_recorded", [True, False])
def test_the_recorded_scale_is_used_and_the_formula_where_there_is_none(
    is_recorded: bool, tmp_path: Path
) -> None:
    """A recorded scale that is 0.1 % off the formula, as sums in a narrower type make it."""
    state = peer_state()
    formula = state["activation_global_scale"]
    recorded = formula * 1.001 if is_recorded else None
    state = peer_state(activation_global_scale=recorded)
    scale = load_dictionary_learning(written(tmp_path, state)).normaliser.scale
    torch.testing.assert_close(scale, formula if recorded is None else recorded, rtol=1e-7, atol=0)


def test_statistics_scaled_per_dimension_are_refused(tmp_path: Path) -> None:
    state = peer_state(activation_global_scale=torch.ones(N_MODELS))
    with pytest.raises(ValueError, match="scaled per dimension"):
        load_dictionary_learning(written(tmp_path, state))


def test_compiled_and_layered_and_half_precision_checkpoints_are_read(tmp_path: Path) -> None:
    state = peer_state()
    decoder = state["decoder.weight"]
    variant = {name: value for name, value in state.items() if name != "decoder.weight"}
    variant |= {f"decoder.layers.{m}.weight": decoder[m].clone() for m in range(N_MODELS)}
    compiled = {f"_orig_mod.{name}": value for name, value in variant.items()}
    assert_same_function(load_dictionary_learning(written(tmp_path, compiled)), state)
    half = {n: v.bfloat16() if v.ndim == 3 else v for n, v in state.items()}
    loaded = load_dictionary_learning(written(tmp_path, half, "model.safetensors"))
    assert loaded.decoder.dtype == torch.float32


def test_cut_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = written(tmp_path, peer_state())
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(ValueError, match="is cut, or no checkpoint"):
        load_dictionary_learning(path)
    cut = written(tmp_path, peer_state(), "model.safetensors")
    cut.write_bytes(cut.read_bytes()[:-9])
    with pytest.raises(ValueError, match="is cut, or no checkpoint"):
        load_dictionary_learning(cut)
    sae = written(tmp_path, {"encoder.weight": torch.ones(3, 4), "bias": torch.ones(3)}, "ae.pt")
    with pytest.raises(ValueError, match="no CrossCoder of dictionary_learning"):
        load_dictionary_learning(sae)
    with pytest.raises(ValueError, match="shape"):
        load_dictionary_learning(written(tmp_path, peer_state(**{"encoder.bias": torch.ones(3)}), "ae.pt"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"has none of model\.safetensors"):
        load_dictionary_learning(tmp_path / "empty")


def test_an_unreachable_hub_id_says_how_to_go_on() -> None:
    with pytest.raises(ValueError, match="neither a file or folder nor a reachable hub repository"):
        load_dictionary_learning("nobody/no-such-crosscoder")


def own(**settings) -> Crosscoder:
    crosscoder = Crosscoder(
        DictionarySettings(n_latents=N_LATENTS, **settings),
        n_models=N_MODELS,
        d_model=D_MODEL,
        metadata={"training": {"k": 5}},
    )
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    crosscoder.normaliser.mean.normal_()
    crosscoder.normaliser.scale.copy_(torch.tensor([250.0, 0.004]))
    crosscoder.threshold.fill_(2.0)
    return crosscoder


def test_an_exported_crosscoder_computes_the_same_in_the_peers_code(tmp_path: Path) -> None:
    crosscoder = own()
    save_dictionary_learning(crosscoder, tmp_path)
    for state in (load_file(tmp_path / "model.safetensors"), torch.load(tmp_path / "model.pt")):
        assert set(state) == set(peer_state())
        code, x_hat = peer_forward(state, inputs())
        torch.testing.assert_close(crosscoder.encode(inputs()), code, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(crosscoder.decode(code), x_hat, rtol=1e-4, atol=0.1)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["k"] == 5
    assert config["dict_class"] == "BatchTopKCrossCoder"


@pytest.mark.parametrize("code_norm", ["sum", "concat", "mixed", "none"])
def test_reading_what_was_written_gives_the_crosscoder_back(code_norm: str, tmp_path: Path) -> None:
    crosscoder = own(code_norm=code_norm)
    again = load_dictionary_learning(save_dictionary_learning(crosscoder, tmp_path))
    for name, value in crosscoder.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, msg=name)
    assert again.settings.code_norm == code_norm


def test_an_unset_threshold_is_written_as_minus_one_and_no_normaliser_as_nan(tmp_path: Path) -> None:
    crosscoder = Crosscoder(DictionarySettings(n_latents=N_LATENTS), n_models=N_MODELS, d_model=D_MODEL)
    save_dictionary_learning(crosscoder, tmp_path, k=7)
    state = load_file(tmp_path / "model.safetensors")
    assert float(state["threshold"]) == -1
    assert int(state["k"]) == 7
    assert bool(state["activation_mean"].isnan().all())


def test_relu_codes_are_written_as_a_crosscoder_without_k(tmp_path: Path) -> None:
    crosscoder = own()
    crosscoder.metadata = {"training": {"k": None}}
    crosscoder.threshold.fill_(0.0)
    save_dictionary_learning(crosscoder, tmp_path)
    assert {"k", "threshold"}.isdisjoint(load_file(tmp_path / "model.safetensors"))
    assert json.loads((tmp_path / "config.json").read_text())["dict_class"] == "CrossCoder"


def test_what_has_no_counterpart_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="architecture=designated_shared has no counterpart"):
        save_dictionary_learning(own(architecture="designated_shared"), tmp_path)
    gated = own()
    gated.add_gate_(0.1)
    with pytest.raises(ValueError, match="JumpReLU gates"):
        save_dictionary_learning(gated, tmp_path)
    unknown = own()
    unknown.metadata = {}
    with pytest.raises(ValueError, match="needs k"):
        save_dictionary_learning(unknown, tmp_path)
