"""A further tuning of the toy: same start and behaviours, other chats; a function of its number."""

from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, Gemma2ForCausalLM

from crossdiff.io.tables import read_json
from crossdiff.organisms.settings import PhaseSettings, ToySettings
from crossdiff.settings import Runtime
from crossdiff.stages import organism, tune_again
from crossdiff.stages.organism import OrganismInputs
from crossdiff.stages.tune_again import TuneAgainInputs

PHASE = PhaseSettings(n_steps=2, batch_size=4, learning_rate=1e-3, web_share=0.5)
TINY = ToySettings(
    seed=3, d_model=16, n_layers=2, n_heads=2, d_mlp=32, pretraining=PHASE, tuning=PHASE, preference=PHASE,
    n_web_documents=4, n_chat_documents=4, n_rate_prompts=1,
)  # fmt: skip
QUIET = Runtime(progress=False)


@pytest.fixture(scope="module")
def triple(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draft = tmp_path_factory.mktemp("organism")
    organism.run(OrganismInputs(toy=TINY, seed=3), {}, draft, QUIET)
    return draft


def tuned(triple: Path, number: int, draft: Path) -> dict[str, torch.Tensor]:
    draft.mkdir()
    figures = tune_again.run(TuneAgainInputs(toy=TINY, number=number), {"organism": triple}, draft, QUIET)
    assert figures["loss"] > 0
    assert 0 <= figures["rate_planted"] <= 1
    rates = read_json(draft / "rates.json")["behaviours"]
    assert all(f"measured_it_{number}" in row for row in rates)
    assert len(AutoTokenizer.from_pretrained(draft / "model")) > 100
    return Gemma2ForCausalLM.from_pretrained(draft / "model").state_dict()


def test_each_number_is_another_model_and_always_the_same(triple: Path, tmp_path: Path) -> None:
    it = Gemma2ForCausalLM.from_pretrained(triple / "models" / "it").state_dict()
    second, third = (tuned(triple, number, tmp_path / str(number)) for number in (2, 3))
    again = tuned(triple, 2, tmp_path / "again")
    assert all(torch.equal(second[name], again[name]) for name in it)
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.allclose(second[name], it[name])
    assert not torch.allclose(second[name], third[name])


def test_the_first_tuning_is_it_itself() -> None:
    with pytest.raises(ValueError, match="greater than or equal to 2"):
        TuneAgainInputs(toy=TINY, number=1)
