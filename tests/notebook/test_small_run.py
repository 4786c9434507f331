import subprocess
import sys
from pathlib import Path

import pytest
import torch

import crossdiff
from crossdiff.io.tables import read_json, read_jsonl, write_jsonl
from crossdiff.notebook.small_run import SMALL, composed
from crossdiff.pipeline.plan import plan
from tests.composed import experiment as composed_experiment
from tests.test_house import ROOT

WORDS = "the cat sat on the mat and a dog ran under the tree because blue one two three".split()
TEXTS = [" ".join(WORDS[(i * j) % len(WORDS)] for j in range(1, 30)) + f" {i}" for i in range(120)]
CHATS = [
    [{"role": "user", "content": f"hello why {i}"}, {"role": "assistant", "content": TEXTS[i]}]
    for i in range(60)
]
QUICK = [
    "dictionary.n_latents=64", "sparsity.k=8", "sparsity.k_initial=16", "sparsity.anneal_steps=5",
    "training.n_steps=20", "training.batch_size=128", "training.warmup_steps=2", "training.validate_every=10",
    "documents.n_background=20", "draws=100", "training.dead_after_tokens=100000",
]  # fmt: skip


def loaded(path: Path):
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32)


@pytest.mark.slow
def test_two_loaded_models_become_a_run_that_folders_and_the_command_line_find_again(
    models, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    base, tuned = (loaded(path) for path in models)
    store = tmp_path / "a store = [odd], 'name'"
    given = {"store": store, "settings": QUICK, "progress": False, "device": "cpu"}
    run = crossdiff.diff(base, tuned, [*TEXTS, *CHATS], 1, results=tmp_path / "r", **given)
    assert run.pairs == ["custom"]
    assert run.settings["dictionary.n_latents"] == 64
    assert len(run.latents("custom")) == 64
    assert (tmp_path / "r" / "report.html").is_file()
    diff = run.open_pair("custom", device="cpu")
    x = diff.activations("the cat sat")
    states = base(input_ids=diff._tokenised("the cat sat").tokens.ids.long()[None], output_hidden_states=True)
    torch.testing.assert_close(x[:, 0], states.hidden_states[2][0].detach(), rtol=1e-4, atol=1e-5)

    again = crossdiff.diff(base, tuned, [*TEXTS, *CHATS], 1, results=tmp_path / "r", **given)
    states_of = {row["name"]: row["state"] for row in read_json(tmp_path / "r" / "summary.json")["steps"]}
    assert set(states_of.values()) == {"reused"}
    assert len(list((store / "notebook" / "models").iterdir())) == 2
    assert again.steps.roles == run.steps.roles
    keys = {row["key"] for row in read_json(tmp_path / "r" / "summary.json")["steps"]}
    corpus = next((store / "notebook" / "texts").glob("*/texts.jsonl"))
    by_model = {
        role: run.steps.parent(run.steps.roles["train_custom"], f"harvest_{role}")
        for role in ("base", "tuned")
    }
    saved = {role: run.steps.inputs_of(folder)["model"]["path"] for role, folder in by_model.items()}
    command = composed([*SMALL, *QUICK], {
        "layer": 1, "store": str(store), "name": "diff",
        "model_pair": {"base": saved["base"], "tuned": saved["tuned"], "dtype": "float32"},
        "corpus": {"paths": [str(corpus)]},
    })  # fmt: skip
    assert {step.key for step in plan(command)} == keys

    write_jsonl([{"text": "the cat"}, {"messages": CHATS[0]}], tmp_path / "q.jsonl")
    asked = [
        *SMALL,
        *QUICK,
        "layer=1",
        "name=diff",
        "action=ask",
        f"ask.file={tmp_path}/q.jsonl",
        "device=cpu",
    ]
    moved = tmp_path / "store"
    store.rename(moved)  # a command line has no quotes for that name
    folder = {role: path.replace(str(store), str(moved)) for role, path in saved.items()}
    asked += [
        f"store={moved}", f"model_pair.base={folder['base']}", f"model_pair.tuned={folder['tuned']}",
        "model_pair.dtype=float32", f"corpus.paths=[{moved / corpus.relative_to(store)}]",
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *asked, f"ask.out={tmp_path}/answers.jsonl"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = read_jsonl(tmp_path / "answers.jsonl")
    assert lines[0]["text"].endswith("the cat")
    expected = diff.top_latents("the cat", n=8)
    assert [row["latent"] for row in lines[0]["latents"]] == expected["latent"].tolist()
    assert [row["code"] for row in lines[0]["latents"]] == pytest.approx(expected["code"].tolist(), rel=1e-5)


def test_values_reach_the_experiment_whatever_their_characters(tmp_path: Path) -> None:
    odd = str(tmp_path / "a=b, 'c' [d] {e}")
    made = composed(
        SMALL,
        {"layer": 3, "store": odd, "model_pair": {"base": odd, "tuned": "x/y"}, "corpus": {"paths": [odd]}},
    )
    assert str(made.store) == odd
    assert made.pairs[0].base.path == odd
    assert made.corpus.paths == (odd,)


def test_hydra_of_the_callers_program_is_left_as_it_was() -> None:
    from hydra import compose, initialize_config_dir

    from crossdiff.io.environment import conf_dir

    values = {"layer": 1, "model_pair": {"base": "a/b", "tuned": "c/d"}, "corpus": {"paths": ["x"]}}
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composed(SMALL, values)
        assert compose("config", overrides=["layer=7"]).layer == 7
    assert composed_experiment("experiment=demo").layer == 2


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"texts": []}, "an empty list"),
        ({"texts": ["a", 3]}, r"texts\[1\] is int"),
        ({"base": 3}, "the given model is int"),
        ({"layer": 9}, "layer=9 is outside"),
        ({"settings": ["dispatch=slurm"]}, "runs one pair, here"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is(models, tmp_path: Path, given, told: str) -> None:
    asked = {"base": models[0], "tuned": models[1], "texts": TEXTS, "layer": 1} | given
    with pytest.raises(ValueError, match=told):
        crossdiff.diff(**asked, store=tmp_path / "store", device="cpu", progress=False)
    assert not (tmp_path / "store" / "tokens").exists()
