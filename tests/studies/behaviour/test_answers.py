"""A model is asked and judged; one that cannot be asked is refused with the way out."""

import json

import pytest
import torch

from crossdiff.models.pair import ModelSettings, fingerprint
from crossdiff.organisms.language import vocabulary
from crossdiff.organisms.models import build_model, build_tokenizer
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime
from crossdiff.studies.behaviour.answers import GenerateInputs, run

TOY = ToySettings(d_model=16, n_heads=2, n_layers=1, d_mlp=16)


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    tokenizer = build_tokenizer(vocabulary())
    build_model(TOY, tokenizer).save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def inputs(folder, **more) -> GenerateInputs:
    model = ModelSettings(name="it", path=str(folder), dtype="float32")
    return GenerateInputs(model=model, fingerprint=fingerprint(model), n_prompts=1, n_new_tokens=4, **more)


def test_planted_prompts_are_answered_the_same_twice(folder, tmp_path) -> None:
    drafts = [tmp_path / name for name in ("one", "two")]
    for draft in drafts:
        draft.mkdir()
        found = run(inputs(folder, toy=TOY), {}, draft, Runtime(progress=False))
        assert found["n_answers"] == 30
    one, two = ((draft / "answers.jsonl").read_text() for draft in drafts)
    assert one == two
    assert sum(row["n"] for row in json.loads((drafts[0] / "rates.json").read_text())["sets"]) == 30


def test_a_model_without_a_template_cannot_be_asked(folder, tmp_path) -> None:
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ValueError, match="no chat template"):
        run(inputs(folder, toy=TOY), {}, tmp_path, Runtime(progress=False))


def test_a_model_without_an_end_cannot_be_asked(folder, tmp_path) -> None:
    for name in ("generation_config.json", "config.json"):
        path = folder / name
        content = json.loads(path.read_text())
        content.pop("eos_token_id", None)
        path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="generation config"):
        run(inputs(folder, toy=TOY), {}, tmp_path, Runtime(progress=False))
