"""A crosscoder's weights in another normalised space."""

from __future__ import annotations

import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.normaliser import Normaliser


@torch.no_grad()
def renormalised(
    crosscoder: Crosscoder, normaliser: Normaliser, dictionary: DictionarySettings | None = None
) -> Crosscoder:
    """The crosscoder with weights in the space of `normaliser`, with equal codes and reconstructions.

    With `xn = (x - mean) scale` in the old and `xn' = (x - mean') scale'` in the new space: encoders are
    multiplied by scale / scale', decoders by scale' / scale, and the biases absorb the shift. The threshold
    is unset, because scaled codes change with the decoders. `dictionary` defaults to the crosscoder's.
    """
    old = crosscoder.normaliser
    scale, scale_new = old.scale.double()[:, None], normaliser.scale.double()[:, None]
    mean, mean_new = old.mean.double(), normaliser.mean.double()
    encoder, decoder = crosscoder.encoder.double(), crosscoder.decoder.double()
    crosscoder_out = Crosscoder(
        dictionary or crosscoder.settings,
        n_models=crosscoder.n_models,
        d_model=crosscoder.d_model,
        normaliser=normaliser,
    )
    shift = (encoder * (scale * (mean_new - mean))).sum(dim=(1, 2))
    crosscoder_out.encoder.copy_(encoder * scale / scale_new)
    crosscoder_out.encoder_bias.copy_(crosscoder.encoder_bias.double() + shift)
    crosscoder_out.decoder.copy_(decoder * scale_new / scale)
    crosscoder_out.decoder_bias.copy_(
        scale_new * (crosscoder.decoder_bias.double() / scale + mean - mean_new)
    )
    if crosscoder.log_gate is not None:
        crosscoder_out.add_gate_(1.0)
        assert crosscoder_out.log_gate is not None
        crosscoder_out.log_gate.copy_(crosscoder.log_gate)
    return crosscoder_out
