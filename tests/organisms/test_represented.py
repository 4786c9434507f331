"""What the tuned toy models hold of planted behaviours, against planted activations and by hand."""

from __future__ import annotations

import random

import pytest
import torch

from crossdiff.data.tokens import TokenSet
from crossdiff.organisms.documents import show
from crossdiff.organisms.language import build_language
from crossdiff.organisms.represented import (
    Energies,
    behaviour_energies,
    behaviour_of_tokens,
    represented_table,
)
from crossdiff.organisms.settings import ToySettings

LANGUAGE = build_language(ToySettings(n_few=1, n_many=2, n_keep=1))


def test_planted_directions_come_back_with_their_energy() -> None:
    """Lengths 1, 2, 3 along unit vectors: |1 e1 - mean|^2 = 4/9 + 4/9 + 1 = 17/9, and so on."""
    torch.manual_seed(0)
    n, d_model, lengths = 60_000, 6, torch.tensor([[1.0, 2.0, 3.0], [2.0, 2.0, 0.0]])
    behaviour = torch.randint(-1, 3, (n,))
    base = torch.randn(n, d_model)
    mixing = torch.randn(2, d_model, d_model) / 2
    added = torch.zeros(2, n, d_model)
    for model in range(2):
        for number in range(3):
            added[model, behaviour == number, number] = lengths[model, number]
    noise = 0.5 * torch.randn(2, n, d_model)
    tuned = torch.einsum("td,mde->mte", base, mixing) + added + noise
    x = torch.stack([base, *tuned], 1)
    rows = torch.arange(n)
    energies = behaviour_energies(
        lambda: zip(rows.split(7_000), x.split(7_000), strict=True),
        behaviour,
        rows % 2,
        n_behaviours=4,
        ridge=0.0,
    )
    own = torch.diag_embed(lengths) - torch.diag_embed(lengths).mean(1, keepdim=True)
    expected = own.square().sum(-1)
    assert expected[0].tolist() == pytest.approx([17 / 9, 26 / 9, 41 / 9])
    assert torch.allclose(energies.energy[:, :3].float(), expected, rtol=0.05, atol=0.03)
    assert energies.energy[:, 3].isnan().all()
    assert energies.n_tokens.tolist() == [*(int((behaviour == b).sum()) for b in range(3)), 0]
    left = (added + noise - added.mean(1, keepdim=True)).square().sum((1, 2))
    total = (tuned - tuned.mean(1, keepdim=True)).square().sum((1, 2))
    assert torch.allclose(energies.unexplained.float(), left / total, rtol=0.01)


def test_a_token_belongs_to_the_behaviour_that_its_sentence_shows() -> None:
    category = LANGUAGE[0]
    draw = random.Random(0)
    text = show(category.behaviours[0], draw=draw).replace(".", " .").split()
    words = ["<bos>", "the", "garden", ".", *text, "<end_of_turn>"]
    vocabulary = sorted(set(words))
    tokens = _tokens([vocabulary.index(word) for word in words] * 2, vocabulary)
    shown = behaviour_of_tokens(tokens, LANGUAGE, {"chat-0": category.name, "web-0": category.name})
    assert shown.tolist() == [-1] * 4 + [0] * len(text) + [-1] + [-1] * len(words)


def _tokens(ids: list[int], vocabulary: list[str]) -> TokenSet:
    n = len(ids) // 2
    kind = torch.zeros(len(ids), dtype=torch.uint8)
    names = dict(enumerate(vocabulary))
    offsets = torch.tensor([0, n, 2 * n])
    return TokenSet(
        torch.tensor(ids), offsets, kind, ["chat-0", "web-0"], ["chat", "web"], "hash", _display=names
    )


def test_shares_are_of_all_energy_and_what_is_missing_is_none() -> None:
    sizes = [len(category.behaviours) for category in LANGUAGE]
    energy = torch.zeros(2, sum(sizes), dtype=torch.float64)
    energy[:, 0], energy[:, sizes[0]] = torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])
    energy[:, -sizes[-1] :] = torch.nan
    rows = represented_table(LANGUAGE, Energies(energy, torch.zeros(2), torch.ones(sum(sizes)).long()))
    assert rows[0]["share_reference"] == 0.25
    assert rows[0]["share_treatment"] == 0.75
    assert rows[0]["change"] == pytest.approx(2.0)
    assert rows[1]["change"] == pytest.approx(-2 / 3)
    assert rows[2]["change"] is None
    assert rows[-1]["share_reference"] is rows[-1]["change"] is None
    assert rows[-1]["n_without_energy"] == sizes[-1]
