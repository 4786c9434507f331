"""A causal model whose state after one block is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from crossdiff.models.causal import load_causal
from crossdiff.models.load import load_truncated
from crossdiff.models.pair import ModelSettings
from tests.model_folders import ARCHITECTURES, save_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_own_states_give_its_own_logits_and_others_do_not(architecture: str, tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", architecture))
    settings = ModelSettings(name="tuned", path=folder, dtype="float32")
    ids = torch.randint(0, 300, (12,), generator=torch.Generator().manual_seed(0))
    states = load_truncated(settings, folder, layers=[1]).outputs(ids[None], None, layers=[1])[1]
    causal = load_causal(settings, folder, layer=1)
    own = causal.model(input_ids=ids[None], use_cache=False).logits
    found = causal.logits(ids, torch.cat([states, states.flip(1)]), layer=1)
    assert torch.allclose(found[0], own[0], atol=1e-5)
    assert not torch.allclose(found[1], own[0], atol=1e-2)


def test_a_layer_outside_the_model_is_refused(tmp_path: Path) -> None:
    folder = str(save_model(tmp_path / "model", "llama"))
    with pytest.raises(ValueError, match="layer=9 is outside"):
        load_causal(ModelSettings(name="tuned", path=folder, dtype="float32"), folder, layer=9)
