"""Training that goes on from a crosscoder, whose weights are written in the space of these activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import JumpReLU, Sparsity
from crossdiff.io.crosscoders.read import read_crosscoder

if TYPE_CHECKING:
    from crossdiff.core.normaliser import Normaliser


def read_start(
    path: str, dictionary: DictionarySettings, sparsity: Sparsity, *, n_models: int, d_model: int
) -> Crosscoder:
    """The crosscoder at `path`, which must be of this shape and kind; ValueError says what to set."""
    found = read_crosscoder(path)
    if (found.n_models, found.d_model) != (n_models, d_model):
        raise ValueError(
            f"training.start={path} reads {found.n_models} models of width {found.d_model}, these are "
            f"{n_models} of width {d_model}; give a crosscoder of such models"
        )
    same = ["n_latents", "code_norm", "architecture"]
    for name in [*same, *(["dedicated_share"] if dictionary.architecture == "dedicated_feature" else [])]:
        theirs, ours = getattr(found.settings, name), getattr(dictionary, name)
        if theirs != ours:
            raise ValueError(
                f"training.start={path} has {name}={theirs}, the run asks for {ours}; "
                f"give dictionary.{name}={theirs}"
            )
    if dictionary.architecture in ("diff_sae", "designated_shared", "dedicated"):
        raise ValueError(
            f"training.start cannot go on with architecture={dictionary.architecture}: a diff_sae is no "
            "crosscoder, and directions that two models share would differ after rescaling; leave it out"
        )
    if found.log_gate is not None and not isinstance(sparsity, JumpReLU):
        raise ValueError(f"training.start={path} has JumpReLU gates; give sparsity=jumprelu")
    if found.log_gate is None and isinstance(sparsity, JumpReLU):
        found.add_gate_(sparsity.initial_gate)
    return found


@torch.no_grad()
def renormalised(
    crosscoder: Crosscoder, normaliser: Normaliser, dictionary: DictionarySettings
) -> Crosscoder:
    """The same codes and reconstructions of raw activations, with weights in the space of `normaliser`.

    With `xn = (x - mean) scale` in the old and `xn' = (x - mean') scale'` in the new space: encoders are
    multiplied by scale / scale', decoders by scale' / scale, and the biases take up the shift. The threshold
    is unset, because scaled codes change with the decoders.
    """
    old = crosscoder.normaliser
    scale, scale_new = old.scale.double()[:, None], normaliser.scale.double()[:, None]
    mean, mean_new = old.mean.double(), normaliser.mean.double()
    encoder, decoder = crosscoder.encoder.double(), crosscoder.decoder.double()
    found = Crosscoder(
        dictionary, n_models=crosscoder.n_models, d_model=crosscoder.d_model, normaliser=normaliser
    )
    shift = (encoder * (scale * (mean_new - mean))).sum(dim=(1, 2))
    found.encoder.copy_(encoder * scale / scale_new)
    found.encoder_bias.copy_(crosscoder.encoder_bias.double() + shift)
    found.decoder.copy_(decoder * scale_new / scale)
    found.decoder_bias.copy_(scale_new * (crosscoder.decoder_bias.double() / scale + mean - mean_new))
    if crosscoder.log_gate is not None:
        found.add_gate_(1.0)
        assert found.log_gate is not None
        found.log_gate.copy_(crosscoder.log_gate)
    return found
