import math

import pytest
import torch

from crossdiff.organisms.simpo import mean_log_probability, simpo_loss, token_log_probabilities


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
