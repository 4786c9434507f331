"""What is done to the output of a block: by hand, and only where it should be."""

import pytest
import torch
from torch import nn

from crossdiff.models.hooks import Push, pushed


class Tuple(nn.Module):
    """A block that answers with a tuple, as those of some architectures do."""

    def forward(self, x):
        return (x, "cache")


def push(added: list[float], removed: list[float], centre: list[float]) -> Push:
    return Push(torch.tensor([added]), torch.tensor([removed]), torch.tensor(centre))


def test_a_push_by_hand() -> None:
    # (3, 4) + (1, 0) - ((4 - 1) * 1) (0, 1) = (4, 1): what is left along (0, 1) is the centre's
    assert push([1, 0], [0, 1], [9, 1]).applied(torch.tensor([[3.0, 4.0]])).tolist() == [[4.0, 1.0]]
    assert push([1, 0], [0, 0], [9, 1]).applied(torch.tensor([[3.0, 4.0]])).tolist() == [[4.0, 4.0]]


def test_a_push_keeps_the_states_dtype() -> None:
    states = torch.tensor([[3.0, 4.0]], dtype=torch.bfloat16)
    assert push([1, 0], [0, 1], [0, 1]).applied(states).dtype == torch.bfloat16


@pytest.mark.parametrize("block", [nn.Identity(), Tuple()], ids=["tensor", "tuple"])
def test_only_the_last_place_is_pushed_and_only_while_open(block: nn.Module) -> None:
    x = torch.zeros(1, 3, 2)
    with pushed(block, push([1, 2], [0, 0], [0, 0])):
        found = block(x)
    states = found[0] if isinstance(found, tuple) else found
    assert states.tolist() == [[[0, 0], [0, 0], [1, 2]]]
    assert not isinstance(found, tuple) or found[1] == "cache"
    after = block(x)
    assert torch.equal(after[0] if isinstance(after, tuple) else after, x)
    assert x.abs().sum() == 0
