"""Tokenizers and embeddings that do not fit each other are refused before the first step."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from crossdiff.pipeline.plan import plan
from tests.composed import experiment
from tests.model_folders import make_tokenizer

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
