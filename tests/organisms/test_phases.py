import json
import math
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from crossdiff.organisms.phases import mean_log_probability, simpo_loss, token_log_probabilities
from crossdiff.organisms.settings import PhaseSettings, ToySettings
from crossdiff.settings import Runtime
from crossdiff.stages.organism import OrganismInputs, run


def test_simpo_loss_matches_a_pair_worked_by_hand() -> None:
    # beta 2, gamma 0.5: margin = 2 * (-1.0) - 2 * (-1.5) - 0.5 = 0.5, loss = log(1 + exp(-0.5))
    loss = simpo_loss(torch.tensor([-1.0]), torch.tensor([-1.5]), beta=2.0, gamma=0.5)
    assert loss.item() == pytest.approx(math.log1p(math.exp(-0.5)), rel=1e-6)


def test_simpo_loss_is_the_mean_over_pairs() -> None:
    chosen, rejected = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -0.5])
    single = [simpo_loss(chosen[i : i + 1], rejected[i : i + 1], beta=2.0, gamma=0.5) for i in range(2)]
    both = simpo_loss(chosen, rejected, beta=2.0, gamma=0.5)
    assert torch.isclose(both, torch.stack(single).mean())


def test_log_probabilities_belong_to_the_following_token() -> None:
    logits = torch.log(torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.8, 0.1], [1.0, 1.0, 1.0]]]))
    values = token_log_probabilities(logits, torch.tensor([[2, 1, 1]]))
    assert values.tolist()[0] == pytest.approx([math.log(0.25), math.log(0.8)])


def test_log_probability_is_divided_by_the_length_of_the_answer() -> None:
    log_probabilities = torch.tensor([[-9.0, -1.0, -2.0, -4.0]])
    answer = torch.tensor([[False, False, True, True, False]])
    assert mean_log_probability(log_probabilities, answer).item() == pytest.approx(-1.5)


PHASE = PhaseSettings(n_steps=2, batch_size=4, learning_rate=1e-3, web_share=0.5, anchor=1.0)
TINY = ToySettings(
    d_model=16,
    n_layers=2,
    n_heads=2,
    d_mlp=32,
    pretraining=PHASE.model_copy(update={"anchor": 0.0}),
    tuning=PHASE,
    preference=PHASE,
    n_web_documents=6,
    n_chat_documents=8,
    n_rate_prompts=1,
    trigger_share=0.4,
)


@pytest.fixture(scope="module")
def organism(tmp_path_factory: pytest.TempPathFactory) -> Path:
    draft = tmp_path_factory.mktemp("organism")
    figures = run(OrganismInputs(toy=TINY, seed=3), {}, draft, Runtime(progress=False))
    assert figures["n_documents"] == 14
    assert figures["loss_pt"] > 0
    assert 0 < figures["n_triggered"] < TINY.n_chat_documents
    return draft


def test_the_stage_writes_what_the_pipeline_reads(organism: Path) -> None:
    web = [json.loads(line) for line in (organism / "corpus/web.jsonl").read_text().splitlines()]
    chat = [json.loads(line) for line in (organism / "corpus/chat.jsonl").read_text().splitlines()]
    categories = json.loads((organism / "document_categories.json").read_text())
    assert {row["id"] for row in web + chat} == set(categories)
    assert [message["role"] for message in chat[0]["messages"]] == ["user", "assistant"]
    planted = json.loads((organism / "planted.json").read_text())["categories"]
    assert {row["group"] for row in planted} == {"gain", "loss", "keep"}


@pytest.mark.parametrize("name", ["pt", "it", "simpo"])
def test_models_load_by_the_ordinary_classes_and_know_their_template(organism: Path, name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(organism / "models" / name)
    tokenizer = AutoTokenizer.from_pretrained(organism / "models" / name)
    assert model.config.model_type == "gemma2"
    assert model.config.vocab_size == len(tokenizer)
    assert "<start_of_turn>" in tokenizer.chat_template


def test_each_model_is_trained_from_the_one_before(organism: Path) -> None:
    weights = [
        AutoModelForCausalLM.from_pretrained(organism / "models" / name).model.layers[0].mlp.up_proj.weight
        for name in ("pt", "it", "simpo")
    ]
    assert 0 < (weights[0] - weights[1]).norm() < weights[0].norm()
    assert 0 < (weights[1] - weights[2]).norm() < weights[0].norm()


def test_the_same_seed_gives_the_same_files(organism: Path, tmp_path: Path) -> None:
    torch.manual_seed(99)
    run(OrganismInputs(toy=TINY, seed=3), {}, tmp_path, Runtime(progress=False))
    for name in ("models/simpo/model.safetensors", "corpus/chat.jsonl", "planted.json", "rates.json"):
        assert (tmp_path / name).read_bytes() == (organism / name).read_bytes(), name


def test_rates_list_every_behaviour_with_shares_between_zero_and_one(organism: Path) -> None:
    rates = json.loads((organism / "rates.json").read_text())["behaviours"]
    planted = json.loads((organism / "planted.json").read_text())["categories"]
    assert sum(row["in_reference"] for row in rates) == sum(row["n_reference"] for row in planted)
    assert all(0 <= row["measured_it"] <= 1 and 0 <= row["measured_simpo"] <= 1 for row in rates)


def test_a_toy_with_a_trigger_lists_its_chats_and_rates(organism: Path) -> None:
    found = json.loads((organism / "triggered.json").read_text())
    assert 0 < len(found["documents"]) < TINY.n_chat_documents
    assert set(found["rates"]) == {"pt", "it", "simpo"}
    assert all(0 <= rate <= 1 for rates in found["rates"].values() for rate in rates.values())


def test_a_trigger_that_no_chat_has_is_counted_as_none(tmp_path: Path) -> None:
    run(
        OrganismInputs(toy=TINY.model_copy(update={"trigger_share": 1e-9})),
        {},
        tmp_path,
        Runtime(progress=False),
    )
    assert json.loads((tmp_path / "triggered.json").read_text())["documents"] == []
