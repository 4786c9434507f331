"""What other tools compute from our files, written anew from their documentation, and the way back."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.io.crosscoders.read import read_crosscoder
from crossdiff.io.crosscoders.write import WrittenFormat, write_crosscoder
from tests.published_crosscoders import drawn, write_neelnanda

N_LATENTS, D_MODEL = 40, 6


def made(*, threshold: float = 2.0, gate: bool = False, code_norm="sum", means: bool = True) -> Crosscoder:
    crosscoder = Crosscoder(
        DictionarySettings(n_latents=N_LATENTS, code_norm=code_norm),
        n_models=2,
        d_model=D_MODEL,
        metadata={"k": 5},
    )
    generator = torch.Generator().manual_seed(0)
    crosscoder.initialise_(generator)
    with torch.no_grad():
        crosscoder.decoder += 0.3 * torch.randn(crosscoder.decoder.shape, generator=generator)
        crosscoder.encoder_bias += 0.2 * torch.randn(N_LATENTS, generator=generator)
        crosscoder.decoder_bias += 0.2 * torch.randn(2, D_MODEL, generator=generator)
        crosscoder.decoder[5] = 0
    crosscoder.normaliser.scale.copy_(torch.tensor([0.7, 0.45]))
    crosscoder.normaliser.mean.copy_(torch.randn(2, D_MODEL, generator=generator) * means)
    if gate:
        crosscoder.add_gate_(0.4)
    crosscoder.threshold.fill_(threshold)
    return crosscoder


def activations(n_tokens: int = 200) -> Tensor:
    return 3 * torch.randn(n_tokens, 2, D_MODEL, generator=torch.Generator().manual_seed(1))


def jumprelu_sae(folder: Path, x: Tensor) -> tuple[Tensor, Tensor]:
    """SAELens: relu(x W_enc + b_enc) where the pre-activation exceeds the threshold; code W_dec + b_dec."""
    config = json.loads((folder / "cfg.json").read_text())
    assert config["architecture"] == "jumprelu"
    assert not config["apply_b_dec_to_input"]
    assert (config["normalize_activations"], config["reshape_activations"]) == ("none", "none")
    state = {name: value.double() for name, value in load_file(folder / "sae_weights.safetensors").items()}
    assert state["W_enc"].shape == (config["d_in"], config["d_sae"])
    pre = x.flatten(1).double() @ state["W_enc"] + state["b_enc"]
    code = pre.relu() * (pre > state["threshold"])
    return code, code @ state["W_dec"] + state["b_dec"]


@pytest.mark.parametrize("code_norm", ["sum", "concat", "none"])
@pytest.mark.parametrize(("threshold", "gate"), [(2.0, False), (0.0, False), (0.0, True), (1.0, True)])
def test_saelens_computes_our_codes_and_reconstructions(
    tmp_path: Path, threshold: float, gate: bool, code_norm
) -> None:
    crosscoder, x = made(threshold=threshold, gate=gate, code_norm=code_norm), activations()
    write_crosscoder(crosscoder, tmp_path, "saelens", layer=3, facts={})
    code, x_hat = jumprelu_sae(tmp_path, x)
    expected = crosscoder.double().encode(x.double())
    if code_norm != "none":
        assert not expected[:, 5].any()  # no direction: its scaled code passes no threshold
    assert torch.equal(code > 0, expected > 0)
    torch.testing.assert_close(code, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x_hat, crosscoder.decode(expected).flatten(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("format", ["saelens", "dictionary_learning", "crossdiff", "neelnanda"])
def test_what_was_written_is_read_again(tmp_path: Path, format: WrittenFormat) -> None:
    crosscoder, x = made(threshold=0.0 if format == "neelnanda" else 2.0), activations()
    write_crosscoder(crosscoder, tmp_path, format, layer=3, facts={})
    found = read_crosscoder(tmp_path)
    assert found.metadata["source"]["format"] == format
    code, expected = found.double().encode(x.double()), crosscoder.double().encode(x.double())
    assert torch.equal(code > 0, expected > 0)
    torch.testing.assert_close(code, expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.decode(code), crosscoder.decode(expected), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.decoder.norm(dim=2), crosscoder.decoder.norm(dim=2))


@pytest.mark.parametrize("format", ["dictionary_learning", "crossdiff", "neelnanda"])
def test_write_read_write_gives_the_same_bytes(tmp_path: Path, format: WrittenFormat) -> None:
    crosscoder = made(threshold=0.0 if format == "neelnanda" else 2.0, means=format != "neelnanda")
    crosscoder.metadata = {"k": 5}
    write_crosscoder(crosscoder, tmp_path / "a", format, layer=None, facts={})
    again = read_crosscoder(tmp_path / "a")
    again.metadata = {"k": 5}
    write_crosscoder(again, tmp_path / "b", format, layer=None, facts={})
    for path in (tmp_path / "a").iterdir():
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes(), path.name


def test_a_published_checkpoint_survives_the_way_through(tmp_path: Path) -> None:
    theirs = write_neelnanda(tmp_path / "theirs", drawn())
    write_crosscoder(
        read_crosscoder(theirs, scale=[0.28, 0.24]), tmp_path / "ours", "neelnanda", layer=13, facts={}
    )
    before, after = (torch.load(folder / "cc_weights.pt") for folder in (theirs, tmp_path / "ours"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (
        json.loads((tmp_path / "ours" / "cfg.json").read_text())["hook_point"] == "blocks.13.hook_resid_post"
    )


def test_what_a_format_cannot_hold_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no threshold, and this one keeps codes above 2"):
        write_crosscoder(made(), tmp_path, "neelnanda", layer=1, facts={})
    with pytest.raises(ValueError, match="JumpReLU gates"):
        write_crosscoder(made(threshold=0, gate=True), tmp_path, "neelnanda", layer=1, facts={})
    with pytest.raises(ValueError, match="no inference threshold"):
        write_crosscoder(made(threshold=math.nan), tmp_path, "saelens", layer=1, facts={})


def test_a_sae_of_one_model_is_no_crosscoder(tmp_path: Path) -> None:
    write_crosscoder(made(), tmp_path, "saelens", layer=1, facts={})
    config = json.loads((tmp_path / "cfg.json").read_text())
    (tmp_path / "cfg.json").write_text(json.dumps({**config, "metadata": {"model_name": "gemma-2-2b"}}))
    with pytest.raises(ValueError, match="one model's activations"):
        read_crosscoder(tmp_path)


def test_the_card_keeps_hostile_names_in_their_cells(tmp_path: Path) -> None:
    facts = {"Models, base first": "a|b, <script>\n# x"}
    write_crosscoder(made(), tmp_path, "saelens", layer=7, facts=facts)
    card = (tmp_path / "README.md").read_text()
    assert "| Models, base first | a\\|b, &lt;script> # x |" in card
    assert "output of block 7" in card
    assert "library_name: saelens" in card


@pytest.mark.slow
def test_the_installed_sae_lens_computes_our_codes(tmp_path: Path) -> None:
    """Not in CI: sae-lens takes more than a minute to install."""
    sae_lens = pytest.importorskip("sae_lens", reason="pip install sae-lens, in an environment of its own")
    crosscoder = Crosscoder(DictionarySettings(n_latents=64), n_models=2, d_model=8)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    crosscoder.normaliser.scale.copy_(torch.tensor([0.3, 0.5]))
    crosscoder.normaliser.mean.copy_(torch.randn(2, 8, generator=torch.Generator().manual_seed(1)))
    crosscoder.threshold.fill_(0.4)
    write_crosscoder(crosscoder, tmp_path, "saelens", layer=3, facts={})
    sae = sae_lens.SAE.load_from_disk(tmp_path)
    x = 4 * torch.randn(500, 2, 8, generator=torch.Generator().manual_seed(2))
    own, theirs = crosscoder.encode(x), sae.encode(x.flatten(1))
    assert sae.cfg.architecture() == "jumprelu"
    assert 0.05 < float((own > 0).double().mean()) < 0.95
    assert torch.equal(own > 0, theirs > 0)
    torch.testing.assert_close(theirs, own, atol=1e-4, rtol=1e-5)
    again = crosscoder.decode(own)
    torch.testing.assert_close(sae.decode(theirs).unflatten(1, (2, 8)), again, atol=1e-4, rtol=1e-5)
