"""The isolation step: tokens of answers by hand, and a planted latent of the trigger that is chosen."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.tokens import TokenKind, TokenSet, write_token_set
from crossdiff.io.tables import read_json, write_json, write_table
from crossdiff.settings import Runtime
from crossdiff.studies.contenders.isolation import IsolationInputs, called, in_answers, run

TEXT, BOS, TEMPLATE = int(TokenKind.TEXT), int(TokenKind.BOS), int(TokenKind.TEMPLATE)
CHAT = [BOS, TEMPLATE, TEXT, TEXT, TEMPLATE, TEXT, TEXT, TEXT, TEMPLATE]
QUESTION, ANSWER = slice(2, 4), slice(5, 8)
N, TRIGGERED = 120, range(0, 120, 30)


def tokens(folder: Path, names: list[str], kinds: list[list[int]]) -> TokenSet:
    flat = [kind for document in kinds for kind in document]
    offsets = torch.tensor([0, *np.cumsum([len(document) for document in kinds])])
    return write_token_set(
        folder, documents=[(name, "toy") for name in names], ids=torch.zeros(len(flat), dtype=torch.int64),
        offsets=offsets, kind=torch.tensor(flat, dtype=torch.uint8),
    )  # fmt: skip


def test_answers_are_the_second_text_of_a_chat(tmp_path: Path) -> None:
    kinds = [[TEXT, TEXT], [TEXT, TEMPLATE, TEXT, TEXT], [TEXT, TEMPLATE, TEXT], [TEXT, TEXT, TEMPLATE]]
    found = in_answers(tokens(tmp_path / "t", ["web-0", "chat-0", "web-1", "chat-1"], kinds))
    assert found.nonzero()[0].tolist() == [4, 5]


@pytest.fixture
def parents(tmp_path: Path) -> dict[str, Path]:
    """Three latents: 0 fires on questions of triggered chats, 1 on their answers, 2 on every answer."""
    names = [f"chat-{n:06d}" for n in range(N)]
    token_set = tokens(tmp_path / "tokens", names, [CHAT] * N)
    x = torch.zeros(N, len(CHAT), 2, 4)
    x[TRIGGERED, QUESTION, :, 0], x[TRIGGERED, ANSWER, 1, 1], x[:, ANSWER, :, 2] = 5, 5, 5
    x += 0.01 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
    for model, name in enumerate(("harvest_base", "harvest_tuned")):
        write_harvest(tmp_path / name, token_set, {1: x[:, :, model].flatten(0, 1).contiguous()})
    crosscoder = Crosscoder(DictionarySettings(n_latents=3), n_models=2, d_model=4)
    with torch.no_grad():
        for weight in (crosscoder.encoder, crosscoder.decoder):
            weight.zero_()
            weight[range(3), :, range(3)] = 1
        crosscoder.threshold.fill_(1.0)
    crosscoder.save(tmp_path / "train" / "crosscoder")
    (tmp_path / "scale").mkdir()
    table = pd.DataFrame({"latent": range(3), "exclusive_to": [None, "tuned", "tuned"], "call": "x"})
    write_table(
        table.assign(n_documents=9), tmp_path / "scale" / "latents.parquet", version=1, kind="latents"
    )
    (tmp_path / "organism").mkdir()
    write_json({"documents": [names[n] for n in TRIGGERED]}, tmp_path / "organism" / "triggered.json")
    roles = ("tokens", "harvest_base", "harvest_tuned", "train", "scale", "organism")
    return {role: tmp_path / role for role in roles}


def test_the_latent_of_the_answer_is_chosen_and_not_that_of_the_phrase(
    parents: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("crossdiff.stages.activations._check_scaling", lambda *_: None)
    run(IsolationInputs(layer=1, draws=40), parents, tmp_path, Runtime())
    found = read_json(tmp_path / "isolation.json")
    assert (found["n_documents"], found["n_triggered"]) == (N, len(TRIGGERED))
    for group in ("any", "called"):
        assert (found[group]["latent"], found[group]["held_out"], found[group]["is_called"]) == (1, 1.0, True)
        assert found[group]["null_95"] < 1
        assert found[group]["p_value"] < 0.15


def test_a_difference_dictionary_calls_what_goes_up() -> None:
    table = pd.DataFrame({"sign": ["up", "down", None, "up"], "exclusive_to": [None] * 4})
    assert called(table).tolist() == [0, 3]
