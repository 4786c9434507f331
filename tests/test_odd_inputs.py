"""The corpus of odd inputs: each is made, goes through the command line, and is read rightly or refused.

A new kind is one row of `INPUTS`: a maker of `base`, `tuned` and `text`, and what the run must leave or say.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from crossdiff.data.tokens import TokenKind, TokenSet
from crossdiff.io.artifacts import read_manifest
from tests.actions.test_run import typed
from tests.model_folders import make_tokenizer, save_adapter, save_model
from tests.odd_models import save_odd

SMALL = (
    "model_pair=custom", "model_pair.dtype=float32", "layer=1", "corpus=files", "corpus.context=48",
    "dictionary=toy", "dictionary.n_latents=32", "sparsity=toy", "sparsity.k=4", "training=toy",
    "training.n_steps=2", "training.batch_size=32", "device=cpu", "progress=false", "action=train",
)  # fmt: skip
WORDS = "the model said that a small answer is often better than a long one and we agree".split()
LOOP, END = "{% for m in messages %}", "{% endfor %}"
TURN = "<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n"
CAPITALS = "<start_of_turn>{{ m['role'] }}\n{{ m['content'] | upper }}<end_of_turn>\n"
N = 30


def sentence(index: int) -> str:
    return " ".join(WORDS[(index * 7 + step * 3) % len(WORDS)] for step in range(8 + index % 9))


def chat(index: int, answer: str = "") -> dict[str, Any]:
    asked, said = sentence(index), answer + sentence(index + 1)
    return {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}


def lines(folder: Path, rows: list[Any], name: str = "a.jsonl") -> None:
    (folder / "text").mkdir(exist_ok=True)
    (folder / "text" / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


def models(folder: Path, template: str | None = LOOP + TURN + END) -> None:
    for seed, name in enumerate(("base", "tuned")):
        save_model(folder / name, "llama", seed=seed, tokenizer=make_tokenizer(template=template))


def of_chats(template: str, *, answer: str = "") -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        models(folder, template)
        lines(folder, [chat(index, answer) for index in range(N)])

    return make


def of_kind(kind: str) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        for seed, name in enumerate(("base", "tuned")):
            save_odd(folder / name, kind, seed=seed)
        lines(folder, [{"text": sentence(index)} for index in range(N)])

    return make


def stale_shards(folder: Path) -> None:
    of_chats(LOOP + TURN + END)(folder)
    save_model(folder / "old", "llama", seed=7, max_shard_size="60KB")
    for file in (folder / "old").glob("model*"):
        shutil.copy(file, folder / "tuned" / file.name)


def tools(folder: Path) -> None:
    calls = "{% for t in m.tool_calls or [] %}[{{ t.name }}]{% endfor %}"
    models(folder, LOOP + "{{ m['content'] or '' }}" + calls + END)
    call = {"role": "assistant", "content": None, "tool_calls": [{"name": "search"}]}
    rows = [chat(index)["messages"] for index in range(N)]
    lines(folder, [{"messages": [asked, call, said]} for asked, said in rows])


def adapter_with_template(folder: Path) -> None:
    models(folder, None)
    shutil.rmtree(folder / "tuned")
    save_adapter(folder / "base", folder / "adapter", torch.arange(10, 20)[None])
    make_tokenizer(template=LOOP + TURN + END).save_pretrained(folder / "adapter")
    lines(folder, [chat(index) for index in range(N)])


def mixed_files(folder: Path) -> None:
    models(folder)
    rows = [{"text": sentence(index)} for index in range(N)]
    for part, name in enumerate(("a.jsonl", "B.JSONL", "c.json")):
        lines(folder, rows[part * 5 : part * 5 + 5], name)
    packed = gzip.compress("\n".join(map(json.dumps, rows[15:])).encode())
    (folder / "text" / "d.jsonl.gz").write_bytes(packed)
    (folder / "text" / "notes.docx").touch()


def chats_as_strings(folder: Path) -> None:
    models(folder)
    lines(folder, [{"messages": json.dumps(chat(index)["messages"])} for index in range(N)])


def long_names(folder: Path) -> None:
    models(folder)
    rows = [{"id": f"{index:02}" + "i" * 300, "text": sentence(index)} for index in range(N)]
    lines(folder, rows, "f" * 244 + ".jsonl")
    (folder / "tuned").rename(folder / ("m" * 250))


def broken(name: str, content: bytes | None, index: dict | None = None) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        of_chats(LOOP + TURN + END)(folder)
        file = folder / "tuned" / name
        file.unlink() if content is None else file.write_bytes(content)
        if index is not None:
            (folder / "tuned" / "model.safetensors.index.json").write_text(json.dumps(index))

    return make


def configured(**changes: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        of_chats(LOOP + TURN + END)(folder)
        file = folder / "tuned" / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return make


def whole_numbers(folder: Path) -> None:
    of_chats(LOOP + TURN + END)(folder)
    file = folder / "tuned" / "model.safetensors"
    weights = {name: (100 * weight).to(torch.int8) for name, weight in load_file(file).items()}
    save_file(weights, file, metadata={"format": "pt"})


def pickled_code(folder: Path) -> None:
    of_chats(LOOP + TURN + END)(folder)
    (folder / "tuned" / "model.safetensors").unlink()
    (folder / "tuned" / "pytorch_model.bin").write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")


def adapter_with(name: str, content: bytes) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        adapter_with_template(folder)
        (folder / "adapter" / name).write_bytes(content)

    return make


def masks_of_segments(folder: Path) -> None:
    models(folder)
    lines(folder, [{"input_ids": [9, 10, 11, 12], "attention_mask": [1, 1, 2, 2]} for _ in range(N)])


def word_among_ids(folder: Path) -> None:
    models(folder)
    lines(folder, [{"input_ids": [9, 10, "x", 12]} for _ in range(N)])


def latin_name(folder: Path) -> None:
    of_chats(LOOP + TURN + END)(folder)
    texts = os.fsencode(folder / "text")
    os.rename(texts + b"/a.jsonl", texts + b"/caf\xe9.jsonl")


def zst_that_is_none(folder: Path) -> None:
    models(folder)
    lines(folder, [{"text": sentence(index)} for index in range(N)], "a.jsonl.zst")


def other_bos(folder: Path) -> None:
    models(folder)
    other = make_tokenizer()
    other.bos_token = "<start_of_turn>"
    other.save_pretrained(folder / "base")
    lines(folder, [{"text": sentence(index)} for index in range(N)])


@dataclass(frozen=True)
class Run:
    """What a finished run left."""

    folder: Path
    tokens: TokenSet
    harvests: dict[str, dict[str, Any]]
    printed: str

    def kinds(self, kind: TokenKind) -> torch.Tensor:
        return self.tokens.kind == kind


@dataclass(frozen=True)
class Input:
    """One row: how it is made, what else is typed, and what must hold, or what the one message says."""

    make: Callable[[Path], None]
    holds: Callable[[Run], bool] | None = None
    says: tuple[str, ...] = ()
    typed: tuple[str, ...] = field(default=())
    tuned: str = "tuned"


def every_bos_is_bos(run: Run) -> bool:
    at_bos = run.tokens.ids == run.tokens.tokenizer.bos_token_id
    return bool((at_bos == run.kinds(TokenKind.BOS)).all()) and int(at_bos.sum()) > run.tokens.n_documents


def reads_transformers_weights(run: Run) -> bool:
    manifest = run.harvests["tuned"]
    return manifest["weights"] == "model.safetensors" and any("index" in n for n in manifest["notices"])


def text_is(part: float) -> Callable[[Run], bool]:
    """At least this part of the tokens is text, and some are the template's."""
    return lambda run: bool(
        run.kinds(TokenKind.TEXT).float().mean() > part and run.kinds(TokenKind.TEMPLATE).any()
    )


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0000\nsize 12\n"
ADAPTER: dict[str, Any] = {"typed": ("model_pair.tuned_adapter={folder}/adapter",), "tuned": "base"}
BUCKET = ("source.batching=bucket",)
FAILS = "{{ 1 // (messages | length - 2) }}"
INPUTS = {
    "an older index beside one file": Input(stale_shards, reads_transformers_weights),
    "factors that depend on the row": Input(of_kind("longrope"), lambda run: run.tokens.n_documents > 20),
    "fewer positions than the check's rows": Input(
        of_kind("few positions"), lambda run: run.tokens.longest <= 40, typed=("corpus.context=null",)
    ),
    "a vision tower": Input(of_kind("vision"), lambda run: run.tokens.n_documents > 20, typed=BUCKET),
    "a vision tower, packed": Input(of_kind("vision"), says=("mixes documents", *BUCKET)),
    "BOS at every turn": Input(of_chats(LOOP + "{{ bos_token }}" + TURN + END), every_bos_is_bos),
    "a template that drops thoughts": Input(
        of_chats(
            LOOP + "{{ m['content'].split('</think>')[-1] }}<end_of_turn>" + END, answer="<think>a</think>"
        ),
        lambda run: text_is(0.5)(run) and "cannot be distinguished" not in run.printed,
    ),
    "tools and null": Input(tools, text_is(0.5)),
    "a template that fails": Input(
        of_chats(FAILS), says=("a.jsonl:1", "ZeroDivision", "corpus.skip_bad=true")
    ),
    "an adapter with a template": Input(
        adapter_with_template,
        text_is(0.3),
        typed=("model_pair.tuned_adapter={folder}/adapter",),
        tuned="base",
    ),
    "a folder of mixed files": Input(
        mixed_files, lambda run: run.tokens.n_documents == N and "notes.docx" in run.printed
    ),
    "chats as strings": Input(chats_as_strings, text_is(0.3)),
    "names of 250 characters": Input(long_names, lambda run: run.tokens.n_documents == N, tuned="m" * 250),
    "most of a corpus cut away, and fewer tokens than asked for": Input(
        of_chats(LOOP + TURN + END),
        lambda run: "cut off more tokens" in run.printed and "of corpus.n_tokens=" in run.printed,
        typed=("corpus.context=16", "corpus.n_tokens=100000"),
    ),
    "another BOS": Input(other_bos, lambda run: "base opens a text with '<start_of_turn>'" in run.printed),
    "weights that are an LFS pointer": Input(
        broken("model.safetensors", LFS),
        says=("tuned/model.safetensors is a Git LFS pointer", "git lfs pull"),
    ),
    "a .zst that is none": Input(zst_that_is_none, says=("a.jsonl.zst is no whole compressed file",)),
    "a template that writes capitals": Input(of_chats(LOOP + CAPITALS + END), text_is(0.5)),
    "a function that transformers does not know": Input(
        configured(hidden_act="nosuch"), says=("tuned cannot be loaded: KeyError", "check its files")
    ),
    "an index without metadata": Input(
        broken("model.safetensors", None, index={"weight_map": {"model.norm.weight": "gone.safetensors"}}),
        says=("tuned cannot be loaded: KeyError", "check its files"),
    ),
    "a pickle with code in it": Input(
        pickled_code, says=("tuned cannot be loaded: Weights only load failed",)
    ),
    "an adapter whose settings are cut": Input(
        adapter_with("adapter_config.json", b"{"), says=("adapter_config.json is no JSON",), **ADAPTER
    ),
    "an adapter that is an LFS pointer": Input(
        adapter_with("adapter_model.safetensors", LFS), says=("git lfs pull",), **ADAPTER
    ),
    "an attention_mask of packed segments": Input(
        masks_of_segments, says=("a.jsonl:1 has an attention_mask with 2 at place 2", "corpus.skip_bad=true")
    ),
    "a word among token ids": Input(
        word_among_ids, says=("a.jsonl:1", "input_ids[2] is str among token ids")
    ),
    "a model without blocks": Input(
        configured(num_hidden_layers=0), says=("tuned has no blocks by its config.json",)
    ),
    "a file name in Latin-1": Input(latin_name, says=("is no UTF-8; rename it",)),
    "weights of whole numbers": Input(whole_numbers, says=("matrices of whole numbers", "float32")),
    "a tokenizer that is an LFS pointer": Input(
        broken("tokenizer.json", LFS), says=("tokenizer of", "cannot be read", "LFS")
    ),
    "a tokenizer that is cut": Input(
        broken("tokenizer.json", b'{"version": "1.0", "model": {"ty'), says=("tokenizer of", "cannot be read")
    ),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_an_odd_input_is_read_rightly_or_refused_with_one_message(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    given = INPUTS[kind]
    given.make(tmp_path)
    capfd.readouterr()
    code = typed(
        monkeypatch, *SMALL, f"model_pair.base={tmp_path}/base", f"model_pair.tuned={tmp_path}/{given.tuned}",
        f"corpus.paths=[{tmp_path}/text]", f"store={tmp_path}/store",
        *(text.format(folder=tmp_path) for text in given.typed),
    )  # fmt: skip
    printed = capfd.readouterr()
    assert "Traceback" not in printed.err
    if given.holds is None:
        assert code == 2, printed.err
        assert printed.err.count("error: ") == 1
        assert [part for part in given.says if part not in printed.err] == [], printed.err
        return
    assert code == 0, printed.err
    assert [p for p in (tmp_path / "store").rglob("*") if not p.stat().st_mode & 0o040] == []  # a group's
    (tokens,) = (tmp_path / "store" / "tokens").glob("[!.]*")
    manifests = [read_manifest(path) for path in (tmp_path / "store" / "harvest").glob("[!.]*")]
    harvests = {m["inputs"]["model"]["name"]: m["counts"] for m in manifests}
    run = Run(tmp_path, TokenSet.open(tokens), harvests, printed.out)
    assert given.holds(run), (run.tokens.details, printed.out)
