"""Answers of a chat model: a push enters once per new token, a LoRA adapter takes part."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from crossdiff.models.config_file import check_can_be_asked
from crossdiff.models.generate import (
    Steering,
    answers,
    block_of,
    load_causal,
    load_chat_model,
)
from crossdiff.models.hooks import Push
from crossdiff.models.load import load_truncated
from crossdiff.models.pair import ModelSettings
from tests.model_folders import ARCHITECTURES, D_MODEL, save_model

N_NEW = 5


def settings(folder: Path, **more: object) -> ModelSettings:
    return ModelSettings(name="tuned", path=str(folder), **{"dtype": "float32", **more})


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_direction_is_added_once_per_new_token_and_only_there(architecture: str, tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", architecture))
    chat = load_chat_model(model, model.path, device="cpu")
    chat.model.generation_config.eos_token_id = 511  # never said: every answer has N_NEW tokens
    vectors = torch.randn(2, D_MODEL, generator=torch.Generator().manual_seed(0))
    own, next_one = block_of(chat, model, 1), block_of(chat, model, 2)
    before, after = [], []
    own.register_forward_hook(lambda _, __, out: before.append(out[0] if isinstance(out, tuple) else out))
    next_one.register_forward_pre_hook(
        lambda _, args, kw: after.append(args[0] if args else kw["hidden_states"]), with_kwargs=True
    )
    steering = Steering(own, Push(vectors, torch.zeros(2, D_MODEL), torch.zeros(D_MODEL)))
    list(answers(chat, ["the cat sat on the red mat", "why"], n_new_tokens=N_NEW, seed=0, steering=steering))
    assert len(before) == len(after) == N_NEW
    for raw, changed in zip(before, after, strict=True):
        torch.testing.assert_close(changed[:, -1] - raw[:, -1], vectors, atol=1e-5, rtol=1e-5)
        assert torch.equal(changed[:, :-1], raw[:, :-1])
    assert before[0].shape[1] > 1
    assert before[1].shape[1] == 1


def test_no_push_changes_nothing_and_seeds_decide(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    chat = load_chat_model(model, model.path, device="cpu")
    nothing = torch.zeros(2, D_MODEL)
    steering = Steering(block_of(chat, model, 1), Push(nothing, nothing, torch.zeros(D_MODEL)))
    prompts = ["the cat", "a dog sat"]
    plain = list(answers(chat, prompts, n_new_tokens=N_NEW, seed=0))
    assert plain == list(answers(chat, prompts, n_new_tokens=N_NEW, seed=0, steering=steering))
    assert plain != list(answers(chat, prompts, n_new_tokens=N_NEW, seed=1))


FIELDS = {
    "repetition_penalty": 5.0, "no_repeat_ngram_size": 1, "suppress_tokens": list(range(3, 400)),
    "begin_suppress_tokens": [5], "num_return_sequences": 2, "num_beams": 3, "min_new_tokens": 4,
    "max_length": 3, "temperature": 0.1, "bad_words_ids": [[9]], "do_sample": False, "length_penalty": 3.0,
}  # fmt: skip


def test_no_field_of_the_generation_config_enters_but_the_end_tokens(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    prompts = ["the cat", "a dog sat", "why"]

    def asked() -> list[str]:
        chat = load_chat_model(settings(folder), str(folder), device="cpu")
        return list(answers(chat, prompts, n_new_tokens=12, seed=0))

    plain = asked()
    file = folder / "generation_config.json"
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, **FIELDS}))
    assert asked() == plain
    file.write_text(json.dumps({**kept, "eos_token_id": list(range(512))}))
    assert asked() == [""] * 3


def test_a_model_without_a_pad_token_answers_and_its_tokenizers_end_counts(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    file = folder / "tokenizer_config.json"
    config = json.loads(file.read_text())
    config.pop("pad_token", None)
    file.write_text(json.dumps(config))
    chat = load_chat_model(settings(folder), str(folder), device="cpu")
    assert chat.tokenizer.eos_token_id in chat.ends
    assert chat.tokenizer.pad_token_id in chat.ends
    assert len(list(answers(chat, ["the cat sat on the red mat", "why"], n_new_tokens=3, seed=0))) == 2
    assert chat.sampling()["end_tokens"] == chat.ends


def test_a_layer_outside_the_model_is_refused(tmp_path: Path) -> None:
    model = settings(save_model(tmp_path / "model", "llama"))
    with pytest.raises(ValueError, match="layer=9 is outside"):
        block_of(load_chat_model(model, model.path, device="cpu"), model, 9)


def test_what_a_folder_lacks_is_said_before_it_is_loaded(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "model", "llama")
    check_can_be_asked(settings(folder))
    check_can_be_asked(ModelSettings(name="it", path="organism:it"))
    check_can_be_asked(ModelSettings(name="it", path="some/model"))
    template = folder / "chat_template.jinja"
    text = template.read_text()
    template.unlink()
    with pytest.raises(ValueError, match="no chat template"):
        check_can_be_asked(settings(folder))
    template.write_text(text)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**content, "eos_token_id": None}))
    with pytest.raises(ValueError, match="names the end of a turn"):
        check_can_be_asked(settings(folder))


def test_an_adapter_is_merged_before_the_model_is_asked(tmp_path: Path) -> None:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", "llama")
    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    config = LoraConfig(target_modules=["q_proj", "v_proj"], init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = get_peft_model(plain, config)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(10, 30)[None]
    with torch.inference_mode():
        expected = adapted.eval()(input_ids=ids).logits
        chat = load_chat_model(settings(folder, adapter=str(tmp_path / "adapter")), str(folder), device="cpu")
        torch.testing.assert_close(chat.model(input_ids=ids).logits, expected)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_own_states_give_its_own_logits_and_others_do_not(architecture: str, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", architecture))
    settings = ModelSettings(name="tuned", path=folder, dtype="float32")
    ids = torch.randint(0, 300, (12,), generator=torch.Generator().manual_seed(0))
    states = load_truncated(settings, folder, layers=[1]).outputs(ids[None], None, layers=[1])[1]
    causal = load_causal(settings, folder, layer=1)
    own = causal.model(input_ids=ids[None], use_cache=False).logits
    found = causal.logits(ids, torch.cat([states, states.flip(1)]), layer=1)
    assert torch.allclose(found[0], own[0], atol=1e-5)
    assert not torch.allclose(found[1], own[0], atol=1e-2)


def test_a_layer_outside_the_patched_model_is_refused(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", "llama"))
    with pytest.raises(ValueError, match="layer=9 is outside"):
        load_causal(ModelSettings(name="tuned", path=folder, dtype="float32"), folder, layer=9)
