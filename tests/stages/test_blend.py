"""Blending is linear in the weights, and refuses models of different shapes."""

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from crossdiff.stages.blend import blend_


def model(seed: int, *, width: int = 8) -> LlamaForCausalLM:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=11, hidden_size=width, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("distance", [0.0, 0.25, 1.0, 2.0])
def test_every_weight_lies_on_the_line(distance: float) -> None:
    first, second, start = model(0), model(1), model(0)
    found = blend_(first, second, distance=distance)
    for weight, before, after in zip(
        first.parameters(), start.parameters(), second.parameters(), strict=True
    ):
        torch.testing.assert_close(weight, before + distance * (after - before))
    assert found["relative_step"] > 0


def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="two fine-tunings of one base"):
        blend_(model(0), model(1, width=12), distance=0.5)
