"""Truncated models give the block outputs of the full model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from crossdiff.models.config_file import check_adapter
from crossdiff.models.load import check_device, load_truncated, weights_read
from crossdiff.models.pair import ModelSettings
from crossdiff.models.weight_names import INDEX, needed_weights
from tests.model_folders import ARCHITECTURES, MORE_ARCHITECTURES, save_adapter, save_model
from tests.odd_models import hidden_states, save_odd

ALL = (*ARCHITECTURES, *MORE_ARCHITECTURES)
IDS = torch.arange(10, 30)[None]


def settings(folder: Path, **changes: object) -> ModelSettings:
    return ModelSettings(name="m", path=str(folder), **{"dtype": "float32", **changes})


@pytest.mark.parametrize("architecture", ALL)
def test_hooked_outputs_are_the_full_models_hidden_states(tmp_path: Path, architecture: str) -> None:
    from transformers import AutoModelForCausalLM

    save_model(tmp_path, architecture)
    full = AutoModelForCausalLM.from_pretrained(
        tmp_path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    ids = torch.randint(6, 300, (3, 24), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        hidden = full(input_ids=ids, output_hidden_states=True).hidden_states
    model = load_truncated(settings(tmp_path), str(tmp_path), layers=[0, 2])
    outputs = model.outputs(ids, None, layers=[0, 2])
    assert len(model.blocks) == 3
    torch.testing.assert_close(outputs[0], hidden[1])
    torch.testing.assert_close(outputs[2], hidden[3])


@pytest.mark.parametrize(
    ("architecture", "attention"),
    [
        *((name, "eager") for name in ALL),
        ("llama", "sdpa"),
        ("qwen2", "sdpa"),
        ("gpt_neox", "sdpa"),
    ],
)
def test_packed_documents_do_not_see_each_other(tmp_path: Path, architecture: str, attention: str) -> None:
    save_model(tmp_path, architecture)
    model = load_truncated(settings(tmp_path, attention=attention), str(tmp_path), layers=[2])
    documents = [
        torch.randint(6, 300, (n,), generator=torch.Generator().manual_seed(n)) for n in (7, 1, 13, 11)
    ]
    packed = model.outputs(
        torch.cat(documents)[None],
        torch.cat([torch.arange(len(d)) for d in documents])[None],
        layers=[2],
    )[2][0]
    alone = torch.cat([model.outputs(d[None], None, layers=[2])[2][0] for d in documents])
    torch.testing.assert_close(packed, alone, rtol=1e-4, atol=1e-5)


def test_files_of_later_blocks_are_never_opened(tmp_path: Path) -> None:
    save_model(tmp_path / "whole", "llama")
    save_model(tmp_path / "parts", "llama", max_shard_size="30KB")
    weight_map = json.loads((tmp_path / "parts" / INDEX).read_text())["weight_map"]
    needed = set(needed_weights(weight_map, 2).values())
    unneeded = set(weight_map.values()) - needed
    assert unneeded
    for name in unneeded:
        (tmp_path / "parts" / name).write_bytes(b"not a checkpoint")
    ids = torch.arange(10, 30)[None]
    found = [
        load_truncated(settings(folder), str(folder), layers=[1]).outputs(ids, None, layers=[1])[1]
        for folder in (tmp_path / "whole", tmp_path / "parts")
    ]
    assert torch.equal(*found)


def test_only_the_first_blocks_are_built(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", n_blocks=8)
    counts = [
        sum(
            p.numel()
            for p in load_truncated(settings(tmp_path), str(tmp_path), layers=[n]).blocks.parameters()
        )
        for n in (1, 3)
    ]
    assert counts[1] == 2 * counts[0]


@pytest.mark.parametrize("max_shard_size", ["1GB", "30KB"])
def test_an_adapter_is_merged_into_the_blocks(tmp_path: Path, max_shard_size: str) -> None:
    folder = save_model(tmp_path / "model", "llama", max_shard_size=max_shard_size)
    expected = save_adapter(folder, tmp_path / "adapter", IDS)
    model = settings(folder, adapter=str(tmp_path / "adapter"))
    found = load_truncated(model, model.path, layers=[1]).outputs(IDS, None, layers=[1])[1]
    torch.testing.assert_close(found, expected)
    bare = load_truncated(settings(folder), model.path, layers=[1]).outputs(IDS, None, layers=[1])[1]
    assert not torch.allclose(found, bare)


def test_an_adapter_of_another_model_or_with_weights_missing_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    llama, neox = (save_model(tmp_path / name, name) for name in ("llama", "gpt_neox"))
    save_adapter(llama, tmp_path / "adapter", IDS)
    with pytest.raises(
        ValueError, match=r"adapter .* does not fit the model: .*; give the model that it was"
    ):
        load_truncated(settings(neox, adapter=str(tmp_path / "adapter")), str(neox), layers=[1])
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    save_file({name: x for name, x in load_file(weights).items() if "layers.1." not in name}, weights)
    with pytest.raises(ValueError, match=r"adapter .* is not whole: .*layers.1.*; save or download it again"):
        load_truncated(settings(llama, adapter=str(tmp_path / "adapter")), str(llama), layers=[1])


def test_a_layer_outside_the_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, "llama")
    with pytest.raises(ValueError, match=r"layer=4 is outside .* indices 0 to 3; choose one"):
        load_truncated(settings(tmp_path), str(tmp_path), layers=[4])


def test_an_unreachable_hub_model_says_how_to_pass_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    model = ModelSettings(name="m", path="nobody/no-such-model")
    with pytest.raises(ValueError, match=r"nobody/no-such-model cannot be reached .* pass a folder"):
        load_truncated(model, model.path, layers=[0])


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_cuda_without_cuda_is_refused() -> None:
    with pytest.raises(ValueError, match="device=cuda but this machine has no CUDA device; use device=cpu"):
        check_device("cuda")


ODD = (
    "few positions", "longrope", "dynamic", "residuals scaled by depth", "experts in some blocks", "vision",
    "vision tower as deep as the text", "looks to the right",
)  # fmt: skip


@pytest.mark.parametrize("max_shard_size", ["1GB", "40KB"])
@pytest.mark.parametrize("kind", ODD)
def test_blocks_of_odd_models_are_transformers_hidden_states(
    kind: str, max_shard_size: str, tmp_path: Path
) -> None:
    save_odd(tmp_path, kind, max_shard_size=max_shard_size)
    hidden = hidden_states(tmp_path, IDS)
    outputs = load_truncated(settings(tmp_path), str(tmp_path), layers=[0, 1]).outputs(
        IDS, None, layers=[0, 1]
    )
    torch.testing.assert_close(outputs[0], hidden[1])
    torch.testing.assert_close(outputs[1], hidden[2])


def test_the_weights_are_those_that_transformers_reads(tmp_path: Path) -> None:
    """A folder that holds one file and an older index with its shards."""
    import shutil

    save_model(tmp_path / "new", "llama", seed=1)
    save_model(tmp_path / "old", "llama", seed=7, max_shard_size="30KB")
    for file in (tmp_path / "old").glob("model*"):
        shutil.copy(file, tmp_path / "new" / file.name)
    model = settings(tmp_path / "new")
    found = load_truncated(model, model.path, layers=[1]).outputs(IDS, None, layers=[1])[1]
    torch.testing.assert_close(found, hidden_states(tmp_path / "new", IDS)[2])
    file, notices = weights_read(model, model.path)
    assert file == "model.safetensors"
    assert notices[0] == "m: model.safetensors was read and model.safetensors.index.json beside it was not"


@pytest.mark.parametrize("max_shard_size", ["1GB", "30KB"])
def test_adapter_files_beside_merged_weights_are_not_applied_again(
    tmp_path: Path, max_shard_size: str
) -> None:
    from crossdiff.models.generate import load_causal

    folder = save_model(tmp_path / "model", "llama", max_shard_size=max_shard_size)
    expected = hidden_states(folder, IDS)[2]
    save_adapter(folder, folder, IDS)
    assert not torch.allclose(hidden_states(folder, IDS)[2], expected)  # transformers puts the adapter on
    model = settings(folder)
    found = load_truncated(model, model.path, layers=[1]).outputs(IDS, None, layers=[1])[1]
    torch.testing.assert_close(found, expected)
    assert "adapter_config.json beside it was not" in weights_read(model, model.path)[1][0]
    plain = save_model(tmp_path / "plain", "llama", max_shard_size=max_shard_size)
    logits = [
        load_causal(settings(path), str(path), layer=1).logits(IDS[0], expected, layer=1)
        for path in (folder, plain)
    ]
    assert torch.equal(*logits)


def test_an_adapter_with_added_tokens_and_a_prompt_adapter(tmp_path: Path) -> None:
    from peft import LoraConfig, PromptTuningConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    folder = save_model(tmp_path / "model", "llama")
    longer = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    longer.resize_token_embeddings(520)
    config = LoraConfig(
        target_modules=["q_proj"],
        init_lora_weights=False,
        modules_to_save=["embed_tokens"],
        task_type="CAUSAL_LM",
    )
    adapted = get_peft_model(longer, config)
    adapted.save_pretrained(tmp_path / "adapter")
    ids = torch.arange(500, 520)[None]
    with torch.inference_mode():
        expected = adapted.eval()(input_ids=ids, output_hidden_states=True).hidden_states[2]
    model = load_truncated(settings(folder, adapter=str(tmp_path / "adapter")), str(folder), layers=[1])
    assert model.vocab_size == 520
    torch.testing.assert_close(model.outputs(ids, None, layers=[1])[1], expected)

    plain = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    prompts = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    get_peft_model(plain, prompts).save_pretrained(tmp_path / "prompts")
    with pytest.raises(ValueError, match=r"is PROMPT_TUNING: .*cannot be merged; give an adapter"):
        load_truncated(settings(folder, adapter=str(tmp_path / "prompts")), str(folder), layers=[1])
    with pytest.raises(ValueError, match="PROMPT_TUNING"):
        check_adapter(str(tmp_path / "prompts"))


def test_custom_code_that_maps_a_causal_model_alone_is_loaded(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "mine", "llama")
    expected = hidden_states(folder, IDS)[2]
    (folder / "modeling_mine.py").write_text(
        "from transformers import LlamaConfig, LlamaForCausalLM\n"
        "class MineConfig(LlamaConfig):\n    model_type = 'mine'\n"
        "class MineForCausalLM(LlamaForCausalLM):\n    config_class = MineConfig\n"
    )
    config = json.loads((folder / "config.json").read_text()) | {
        "model_type": "mine",
        "auto_map": {
            "AutoConfig": "modeling_mine.MineConfig",
            "AutoModelForCausalLM": "modeling_mine.MineForCausalLM",
        },
    }
    (folder / "config.json").write_text(json.dumps(config))
    model = settings(folder, trust_remote_code=True)
    found = load_truncated(model, model.path, layers=[1]).outputs(IDS, None, layers=[1])[1]
    torch.testing.assert_close(found, expected)
