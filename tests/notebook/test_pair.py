from pathlib import Path

import pytest
import torch

import crossdiff
from crossdiff.core.decoder_norms import raw_directions
from crossdiff.notebook.pair import OpenPair, doubts
from tests.model_folders import N_BLOCKS, make_tokenizer, save_model
from tests.notebook.conftest import random_crosscoder

LAYER = 1
CHAT = [{"role": "user", "content": "hello why"}, {"role": "assistant", "content": "the cat sat"}]


def opened(models: tuple[Path, Path], **options) -> OpenPair:
    given = {"dtype": "float32", "device": "cpu", **options}
    return crossdiff.open_pair(*models, LAYER, random_crosscoder(), **given)


def loaded(path: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


def test_activations_are_hidden_states_of_each_text_by_itself(models) -> None:
    diff = opened(models)
    texts = ["the cat sat on the mat", CHAT, "a dog"]
    x = diff.activations(texts)
    tokens = diff.encode(texts).tokens
    assert x.shape == (len(tokens), 2, 32)
    for number, path in enumerate(models):
        model = loaded(path).eval()
        for text in range(3):
            rows = (tokens["text"] == text).to_numpy()
            ids = diff._tokenised(texts).tokens.ids[rows].long()[None]
            states = model(input_ids=ids, output_hidden_states=True).hidden_states[LAYER + 1][0]
            torch.testing.assert_close(x[rows, number], states.detach(), rtol=1e-4, atol=1e-5)


def test_loaded_models_give_the_same_and_are_left_as_they_were(models) -> None:
    base, tuned = (loaded(path) for path in models)
    tuned.train()
    config = tuned.generation_config
    diff = opened((base, tuned))
    texts = "the cat sat"
    torch.testing.assert_close(diff.activations(texts), opened(models).activations(texts))
    assert isinstance(diff.generate("hello", n_new_tokens=3), str)
    assert tuned.training
    assert not base.training
    assert tuned.generation_config is config


def test_codes_are_the_crosscoders_and_reads_and_bias_add_up_to_them(models) -> None:
    diff = opened(models)
    found = diff.encode(["the cat sat on the mat", "a dog ran"])
    crosscoder, table = diff.crosscoder, found.table
    dense = crosscoder.encode(found.x)
    kept = found.tokens.index[found.tokens["kept"]]
    assert set(found.tokens.loc[~found.tokens["kept"], "kind"]) == {"bos"}
    assert len(table) == int((dense[kept] > 0).sum()) > 0
    place = found.tokens.reset_index().merge(table, on=["text", "position", "token", "kind"], how="right")
    codes = dense[place["index"].to_numpy(), table["latent"].to_numpy()]
    torch.testing.assert_close(torch.tensor(table["code"].to_numpy()), codes)
    bias = crosscoder.encoder_bias[table["latent"].to_numpy()].numpy()
    assert (table["reads_base"] + table["reads_tuned"] + bias).to_numpy() == pytest.approx(
        codes.numpy(), abs=1e-4
    )
    norms = crosscoder.decoder.norm(dim=2)[table["latent"].to_numpy()].numpy()
    assert table["adds_tuned"].to_numpy() == pytest.approx(table["code"].to_numpy() * norms[:, 1], rel=1e-5)
    assert found.l0 == pytest.approx(len(table) / len(kept))


def test_top_latents_are_ranked_by_scaled_code_and_marked(models) -> None:
    diff = opened(models)
    top = diff.top_latents("the cat sat on the mat", n=5)
    scaled = top["code"] * diff.crosscoder.code_norm()[top["latent"].to_numpy()].numpy()
    assert scaled.is_monotonic_decreasing
    assert top["latent"].is_unique
    encoded = diff.encode("the cat sat on the mat")
    best = (diff.crosscoder.scaled(diff.crosscoder.encode(encoded.x))[1:]).max(dim=0).values
    assert top["latent"].tolist() == best.argsort(descending=True)[:5].tolist()
    first = top.iloc[0]
    assert first["marked"].count("«") >= 1
    assert first["n_tokens"] == (encoded.table["latent"] == first["latent"]).sum()
    assert "<mark" in encoded._repr_html_()
    with pytest.raises(ValueError, match="needs the latent table of a run"):
        diff.top_latents("the cat", exclusive_to="tuned")


def test_steering_adds_the_strength_times_the_raw_direction_at_new_tokens(models) -> None:
    base, tuned = (loaded(path) for path in models)
    diff = opened((base, tuned))
    plain = diff.generate("hello", n_new_tokens=1)
    assert plain == diff.generate("hello", n_new_tokens=1, steer={3: 0.0})
    states = {}
    for strength in (0.0, 2.0):

        def keep(_block, inputs, _strength=strength) -> None:
            states[_strength] = inputs[0]

        hook = tuned.model.layers[LAYER + 1].register_forward_pre_hook(keep)
        diff.generate("hello", n_new_tokens=1, steer={3: strength})
        hook.remove()
    moved = states[2.0] - states[0.0]
    torch.testing.assert_close(moved[0, -1], 2 * raw_directions(diff.crosscoder)[3, 1], rtol=1e-4, atol=1e-5)
    assert moved[0, :-1].abs().max() == 0
    several = diff.generate(["hello", "why"], model="base", n_new_tokens=2, steer={3: 1.0, 4: -1.0})
    assert len(several) == 2


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda diff: diff.encode(""), r"texts\[0\] is empty"),
        (lambda diff: diff.encode(["the", ""]), r"texts\[1\] is empty"),
        (lambda diff: diff.encode([]), "an empty list"),
        (lambda diff: diff.encode(3), "texts are int"),
        (lambda diff: diff.encode([3]), r"texts\[0\] is int"),
        (lambda diff: diff.encode("\ud800"), "surrogate"),
        (lambda diff: diff.encode([[{"role": "system", "content": "x"}]]), "System role not supported"),
        (lambda diff: diff.encode("the").show(64), "latent 64 is not one of .* 0 to 63"),
        (lambda diff: diff.generate("x", steer={64: 1.0}), "latent 64 is not one of"),
        (lambda diff: diff.generate("x", steer={1: float("nan")}), "the strength nan"),
        (lambda diff: diff.generate("x", model="chat"), "give base or tuned"),
        (lambda diff: diff.generate(""), "the prompt is empty"),
    ],
)
def test_bad_questions_are_one_clear_error(models, ask, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        ask(opened(models))


def test_what_does_not_fit_is_refused_when_the_pair_is_opened(models, tmp_path: Path) -> None:
    base, tuned = models
    for crosscoder, told in (
        (random_crosscoder(d_model=16), "width 16 and .* has 32"),
        (random_crosscoder(n_models=3), "has 3 models, a pair has 2"),
    ):
        with pytest.raises(ValueError, match=told):
            crossdiff.open_pair(base, tuned, LAYER, crosscoder, device="cpu")
    with pytest.raises(ValueError, match=f"layer={N_BLOCKS} is outside"):
        crossdiff.open_pair(base, tuned, N_BLOCKS, random_crosscoder(), device="cpu")
    with pytest.raises(ValueError, match="the base model is int"):
        crossdiff.open_pair(3, tuned, LAYER, random_crosscoder())
    other = save_model(tmp_path / "other", "llama", tokenizer=make_tokenizer(words=["other", "words"]))
    with pytest.raises(ValueError, match="token"):
        crossdiff.open_pair(other, tuned, LAYER, random_crosscoder(), device="cpu")


def test_a_crosscoder_of_two_families_is_refused(models) -> None:
    crosscoder = random_crosscoder()
    crosscoder.metadata = {"two_families": True}
    with pytest.raises(ValueError, match="two families .* whose models read other tokens"):
        crossdiff.open_pair(*models, LAYER, crosscoder, dtype="float32", device="cpu")


def test_a_crosscoder_is_read_from_its_folder(models, tmp_path: Path) -> None:
    random_crosscoder().save(tmp_path / "crosscoder")
    by_path = crossdiff.open_pair(*models, LAYER, tmp_path / "crosscoder", dtype="float32", device="cpu")
    assert by_path.encode("the cat").table.equals(opened(models).encode("the cat").table)


def test_long_texts_are_cut_with_a_warning(models) -> None:
    with pytest.warns(UserWarning, match="1 of 2 texts are longer than 8 tokens"):
        x = opened(models, context=8).activations(["cat " * 50, "a"])
    assert len(x) == 8 + 2


def test_figures_far_from_the_trainings_are_told_once(models) -> None:
    diff = opened(models)
    diff.crosscoder.metadata["training"] = {"fve_base": 0.9, "fve_tuned": 0.9, "l0": 1.0}
    with pytest.warns(UserWarning, match=r"FVE of base is .* \(training: 0.90\).*L0 is .* \(training: 1.0\)"):
        found = diff.encode("the cat sat on the mat because the dog ran")
    own = {"fve_base": found.fve["base"], "fve_tuned": found.fve["tuned"], "l0": found.l0}
    told = doubts(found, {**own, "fve_base": 0.9})
    assert told is not None
    assert "L0" not in told
    assert "FVE of base" in told


def test_a_model_without_a_template_continues_the_text(tmp_path: Path, models) -> None:
    plain = [
        save_model(tmp_path / str(i), "llama", seed=i, tokenizer=make_tokenizer(template=None))
        for i in (0, 1)
    ]
    diff = opened((plain[0], plain[1]))
    assert isinstance(diff.generate("the cat", n_new_tokens=2), str)
    with pytest.raises(ValueError, match="no chat template"):
        diff.encode([CHAT])
