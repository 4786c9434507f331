"""What a study's pair lacks is one message with exit code 2, before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.model_folders import make_tokenizer, save_model
from tests.test_command_line import crossdiff

ONE_PAIR = ("~comparison", "model_pair=toy_pt_it")
CASES = [
    (("experiment=behaviour", *ONE_PAIR), ["behaviour needs three models", "toy_pt_it", "comparison="]),
    pytest.param(("experiment=layers", "study.layers=[0,9]"), ["layer=9", "0 to 3"], marks=pytest.mark.slow),
    (("experiment=direct", "comparison=null", "model_pair=toy_pt_it"), ["~comparison"]),
]


def refused(*arguments: str) -> str:
    done = crossdiff(*arguments, "size=ci", "action=plan")
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
    return done.stderr


@pytest.mark.parametrize(("arguments", "parts"), CASES)
def test_what_a_study_needs_is_asked_for_in_one_message(arguments: tuple[str, ...], parts: list[str]) -> None:
    said = refused(*arguments)
    assert [part for part in parts if part not in said] == []


def test_a_judge_without_a_key_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ANTHROPIC_API_KEY", raising=False)
    said = refused(
        "experiment=behaviour", "study.prompts=built_in", "study.judge=annotator", "annotator=claude"
    )
    assert "ANTHROPIC_API_KEY is not set" in said
    assert "study.judge=rules" in said


def own_pair(folder: Path) -> tuple[str, ...]:
    paths = [f"model_pair.{name}={folder}/{name}" for name in ("base", "tuned")]
    return ("experiment=steering", "~comparison", "model_pair=custom", *paths, "study.prompts=built_in")


@pytest.mark.slow
def test_a_tuned_model_without_a_template_or_an_end_is_refused_before_the_harvest(tmp_path: Path) -> None:
    save_model(tmp_path / "base", "llama")
    tuned = save_model(tmp_path / "tuned", "llama", tokenizer=make_tokenizer(template=None))
    said = refused(*own_pair(tmp_path))
    assert f"{tuned} has no chat template" in said
    make_tokenizer().save_pretrained(tuned)
    for name in ("config.json", "generation_config.json"):
        content = json.loads((tuned / name).read_text())
        (tuned / name).write_text(json.dumps({**content, "eos_token_id": None}))
    assert "no generation config that names the end" in refused(*own_pair(tmp_path))
