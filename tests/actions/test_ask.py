from pathlib import Path

import pytest

import crossdiff
from crossdiff.actions import ask
from crossdiff.command_settings import AskSettings
from tests.composed import experiment
from tests.model_folders import save_model
from tests.notebook.conftest import random_crosscoder


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("pair")
    models = [save_model(root / name, "llama", seed=seed) for seed, name in enumerate(("base", "tuned"))]
    return crossdiff.open_pair(models[0], models[1], 1, random_crosscoder(), dtype="float32", device="cpu")


def test_a_text_is_answered_as_from_python(pair) -> None:
    line = ask.answer("mine", pair, "the cat sat", AskSettings(text="the cat sat", n=3))
    top = pair.top_latents("the cat sat", n=3)
    assert [row["latent"] for row in line["latents"]] == top["latent"].tolist()
    assert line["text"].endswith("the cat sat")
    assert line["n_tokens"] == 3
    text = ask.as_text(line)
    assert text.startswith("mine: 3 tokens, FVE base ")
    assert text.count("  latent ") == 3
    assert top["marked"][0] in text


def test_files_hold_texts_by_line_and_chats(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("one\n\ntwo\n")
    assert list(ask.texts_of(AskSettings(file=tmp_path / "a.txt"))) == ["one", "two"]
    (tmp_path / "a.jsonl").write_text('{"messages": [{"role": "user", "content": "x"}]}\n{"text": "y"}\n')
    assert list(ask.texts_of(AskSettings(file=tmp_path / "a.jsonl"))) == [
        [{"role": "user", "content": "x"}],
        "y",
    ]


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "needs a text; give either"),
        ({"text": "a", "file": "b.jsonl"}, "give either"),
        ({"file": "missing.jsonl"}, "does not exist"),
    ],
)
def test_a_question_without_a_text_is_refused_first(given, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        list(ask.texts_of(AskSettings(**given)))


def test_an_unfinished_run_and_an_unknown_pair_are_told(tmp_path: Path) -> None:
    given = ["experiment=demo", f"store={tmp_path}", "action=ask", "ask.text=hello"]
    with pytest.raises(ValueError, match="train toy_pt_it is not finished in store=.*action=run first"):
        ask.perform([experiment(*given)])
    with pytest.raises(
        ValueError, match="ask.pair=x is no pair of this command; it has toy_pt_it, toy_pt_it_seed1"
    ):
        ask.perform([experiment(*given, "ask.pair=x")])
    assert experiment(*given, "ask.text=3").ask.text == "3"
