"""What a plan says of weight files and heads before any step has run."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdiff.models.pair import ModelPair, custom_pair
from crossdiff.pipeline import weight_checks
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.weight_checks import check_weights, head_notices
from tests.composed import experiment
from tests.model_folders import make_tokenizer, save_model
from tests.models.test_unembedding import FAMILIES, saved


def pair_of(folder: Path) -> ModelPair:
    return custom_pair(str(folder), str(folder), name="p")


@pytest.mark.parametrize(("kind", "more"), FAMILIES.values(), ids=FAMILIES)
def test_nothing_is_said_of_a_head_that_can_be_read(kind: str, more: dict, tmp_path: Path) -> None:
    saved(kind, more, tmp_path)
    assert [*head_notices(pair_of(tmp_path))] == []


@pytest.mark.parametrize("shards", ["1GB", "60KB"])
def test_headers_alone_answer_for_a_usual_model(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tmp_path, "llama", max_shard_size=shards)
    monkeypatch.setattr("crossdiff.models.unembedding.load_unembedding", None)
    assert [*head_notices(pair_of(tmp_path))] == []


def without_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["lm_head.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def narrow_head(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "lm_head.weight": torch.zeros(512, 24)}, folder / "model.safetensors", {"format": "pt"}
    )


def pickled(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


@pytest.mark.parametrize(
    ("change", "says"),
    [(without_head, "no weight named lm_head"), (narrow_head, "has width 24 and its blocks 32"),
     (pickled, "pytorch_model.bin and no safetensors")],
)  # fmt: skip
def test_a_head_that_cannot_be_read_is_told_before_the_first_step(
    change: object, says: str, tmp_path: Path
) -> None:
    save_model(tmp_path, "llama")
    change(tmp_path)  # type: ignore[operator]
    notices = [*head_notices(pair_of(tmp_path))]
    assert [
        line for line in notices if line.startswith("p: the report will have no logits of the ")
    ] == notices
    assert [says in line for line in notices] == [True, True]


def broken_files(good: bytes) -> Iterator[tuple[bytes, str]]:
    yield b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 12\n", "git lfs pull"
    yield good[:-40], "bytes; save or download the model again"
    yield good[:100], "no whole header"
    yield b"", "its 0 bytes hold no whole header"
    for text in (
        b"[1]",
        b"{",
        b'{"a": 3}',
        b'{"a": {"shape": [2], "data_offsets": 3}}',
        b"[" * 9999,
        b"\xff",
    ):
        yield struct.pack("<Q", len(text)) + text, "its header is no list of weights"


def test_weights_that_are_cut_are_refused(tmp_path: Path) -> None:
    file = save_model(tmp_path, "llama") / "model.safetensors"
    check_weights(pair_of(tmp_path), layer=1)
    for content, says in broken_files(file.read_bytes()):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=f"{file} .*{says}"):
            check_weights(pair_of(tmp_path), layer=1)


def test_a_head_in_a_broken_file_is_a_notice_where_no_step_needs_the_weights(tmp_path: Path) -> None:
    file = save_model(tmp_path, "llama") / "model.safetensors"
    good = file.read_bytes()
    for content, says in broken_files(good):
        file.write_bytes(content)
        assert all(says in line for line in head_notices(pair_of(tmp_path))), says
    (tmp_path / "model.safetensors").write_bytes(good)
    assert not [*head_notices(pair_of(tmp_path))]


def test_only_the_files_of_kept_blocks_count(tmp_path: Path) -> None:
    save_model(tmp_path, "llama", max_shard_size="30KB")
    weight_map = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    later = {file for name, file in weight_map.items() if ".layers.3." in name}
    later -= {file for name, file in weight_map.items() if ".layers.3." not in name}
    assert later
    for file in later:
        (tmp_path / file).write_bytes(b"cut")
    check_weights(pair_of(tmp_path), layer=1)
    with pytest.raises(ValueError, match="hold no whole header"):
        check_weights(pair_of(tmp_path), layer=3)


def test_a_hub_model_is_left_to_its_harvest() -> None:
    check_weights(pair_of(Path("org/model")), layer=1)
    assert not weight_checks._is_local(pair_of(Path("org/model")).base)


ADDED = "<|added|>"


def model(folder: Path, tokenizer: object, *, n_embeddings: int = 512) -> Path:
    """What planning reads of a model: its sizes and its tokenizer."""
    folder.mkdir()
    sizes = {"hidden_size": 32, "num_hidden_layers": 3, "vocab_size": n_embeddings}
    (folder / "config.json").write_text(json.dumps({"model_type": "llama", "name": folder.name, **sizes}))
    tokenizer.save_pretrained(folder)  # type: ignore[attr-defined]
    return folder


def with_added(**options: object):
    tokenizer = make_tokenizer(**options)  # type: ignore[arg-type]
    tokenizer.add_tokens([ADDED], special_tokens=True)
    return tokenizer


def planned(base: Path, tuned: Path, text: str = "a cat sat on the mat", *more: str) -> list:
    documents = base.parent / "text.txt"
    documents.write_text(text)
    pair = ("model_pair=custom", f"model_pair.base={base}", f"model_pair.tuned={tuned}", "layer=1")
    store = f"store={base.parent}/store"
    return plan(experiment(*pair, "corpus=files", f"corpus.paths=[{documents}]", store, *more))


def test_tokenizers_that_give_other_ids_are_refused(tmp_path: Path) -> None:
    base = model(tmp_path / "base", make_tokenizer(words=["fox", "quick", "hello"]))
    with pytest.raises(ValueError, match=r"need one tokenizer: .*tuned \(.*base \(.*models of one family"):
        planned(base, model(tmp_path / "tuned", make_tokenizer()))


def test_a_tokenizer_with_more_tokens_of_the_same_ids_is_read(tmp_path: Path) -> None:
    base = model(tmp_path / "base", make_tokenizer())
    assert planned(base, model(tmp_path / "tuned", with_added()), f"a cat {ADDED}")


def test_an_added_token_that_the_corpus_uses_needs_an_embedding_in_both_models(tmp_path: Path) -> None:
    n = len(make_tokenizer())
    base = model(tmp_path / "base", make_tokenizer(), n_embeddings=n)
    tuned = model(tmp_path / "tuned", with_added(), n_embeddings=n + 1)
    assert planned(base, tuned)
    with pytest.raises(ValueError, match=rf"^2 tokens .*added.*beyond the {n} embeddings of .*base: where"):
        planned(base, tuned, f"a {ADDED} cat {ADDED}")


def test_an_added_token_that_the_template_writes_needs_one_too(tmp_path: Path) -> None:
    n = len(make_tokenizer())
    template = f"{{% for m in messages %}}{ADDED}{{{{ m['content'] }}}}{{% endfor %}}"
    base = model(tmp_path / "base", make_tokenizer(), n_embeddings=n)
    tuned = model(tmp_path / "tuned", with_added(template=template), n_embeddings=n + 1)
    chats = tmp_path / "chats.jsonl"
    chats.write_text(json.dumps({"messages": [{"role": "user", "content": "a cat"}]}))
    with pytest.raises(ValueError, match=rf"^1 tokens .*beyond the {n} embeddings of .*base"):
        planned(base, tuned, "", f"corpus.paths=[{chats}]")


def test_an_adapters_own_tokenizer_counts(tmp_path: Path) -> None:
    base = model(tmp_path / "base", make_tokenizer(template=None))
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    (adapter / "adapter_model.bin").touch()
    assert planned(base, base, "a", f"model_pair.tuned_adapter={adapter}")
    make_tokenizer(words=["fox", "quick", "hello"]).save_pretrained(adapter)
    with pytest.raises(ValueError, match=r"need one tokenizer: .*tuned \(.*adapter\)"):
        planned(base, base, "b", f"model_pair.tuned_adapter={adapter}")


def test_a_tokenizer_that_is_no_json_is_one_message(tmp_path: Path) -> None:
    tuned = model(tmp_path / "tuned", make_tokenizer())
    (tuned / "tokenizer.json").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(ValueError, match=r"tokenizer of .*tuned cannot be read .*LFS.*save_pretrained"):
        planned(model(tmp_path / "base", make_tokenizer()), tuned)


def test_a_tuned_model_without_a_tokenizer_is_refused_and_a_base_without_one_is_read(tmp_path: Path) -> None:
    with_one, without = (
        model(tmp_path / "with", make_tokenizer()),
        model(tmp_path / "without", make_tokenizer()),
    )
    for file in without.glob("*token*"):
        file.unlink()
    for folder in (with_one, without):
        save_file({"a": torch.zeros(1)}, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"without has no tokenizer; save the model's tokenizer there too"):
        planned(with_one, without)
    assert planned(without, with_one)
