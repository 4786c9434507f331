"""The crosscoder: one dictionary over the activations of several models."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn

from crossdiff.core import checkpoint, shard_files
from crossdiff.core.codes import Activations, Bias, Code, PerLatent, SparseCode, code_norm
from crossdiff.core.dictionary import (
    DictionarySettings,
    n_delta,
    project_,
    project_encoder_,
    sparsity_weight,
)
from crossdiff.core.normaliser import Normaliser

LATENT_CHUNK = 4096
TOKEN_CHUNK = 1024
LOOSE = 1 - 1e-5


class Crosscoder(nn.Module):
    """`code = act(sum_m W_enc^m xn^m + b_enc)`, `x_hat^m = W_dec^m code + b_dec^m` (method.md section 2).

    `encode` and `decode` use raw activation units; the weights are in the normalised space, so
    decoder norms, cosines and betas are too. `b_dec` is not subtracted from the input.

    encoder, decoder : [latent, model, d_model]; row j has latent j's directions for all models
    encoder_bias     : [latent]
    decoder_bias     : [model, d_model]
    log_gate         : [latent] or None; JumpReLU only: a code below `exp(log_gate)` is 0
    delta_ratio      : scalar of architecture=delta: the first partition's threshold over `threshold`
    threshold        : scalar, NaN until training sets it; inference keeps a code where `v > threshold`
    """

    threshold: Tensor
    sparsity_weight: Tensor | None
    delta_ratio: Tensor | None

    def __init__(
        self,
        settings: DictionarySettings,
        *,
        n_models: int,
        d_model: int,
        normaliser: Normaliser | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings
        self.n_latents, self.n_models, self.d_model = settings.n_latents, n_models, d_model
        shape = (settings.n_latents, n_models, d_model)
        self.encoder = nn.Parameter(torch.zeros(shape))
        self.encoder_bias = nn.Parameter(torch.zeros(settings.n_latents))
        self.decoder = nn.Parameter(torch.zeros(shape))
        self.decoder_bias = nn.Parameter(torch.zeros(n_models, d_model))
        self.log_gate: nn.Parameter | None = None
        self.normaliser = normaliser or Normaliser(n_models, d_model)
        self.register_buffer("threshold", torch.tensor(float("nan")))
        self.register_buffer("sparsity_weight", sparsity_weight(settings), persistent=False)
        self.register_buffer("delta_ratio", torch.ones(()) if settings.architecture == "delta" else None)
        self.metadata: dict[str, Any] = dict(metadata or {})

    @torch.no_grad()
    def initialise_(self, generator: torch.Generator, *, decoder_bias: Bias | None = None) -> None:
        """Random directions; encoder = decoder, concatenated norm `initial_norm`.

        Directions that the architecture ties or fixes to zero start so.
        """
        drawn = 1 if self.settings.initial_decoders == "equal" else self.n_models
        directions = torch.randn(self.n_latents, drawn, self.d_model, generator=generator)
        self.decoder.copy_(directions.expand_as(self.decoder))
        project_(self.decoder, self.settings)
        self.decoder *= self.settings.initial_norm / self.decoder.norm(dim=(1, 2), keepdim=True)
        self.encoder.copy_(self.decoder)
        self.encoder_bias.zero_()
        self.decoder_bias.copy_(
            decoder_bias if decoder_bias is not None else torch.zeros_like(self.decoder_bias)
        )

    @torch.no_grad()
    def constrain_(self) -> None:
        """Reset weights that the architecture fixes to zero, after an optimizer step."""
        if self.settings.architecture == "dedicated_feature":
            project_(self.decoder, self.settings)
            project_encoder_(self.encoder, self.settings)

    def add_gate_(self, initial: float) -> None:
        """Give every latent a learned JumpReLU gate that starts at `initial`."""
        self.log_gate = nn.Parameter(torch.full((self.n_latents,), math.log(initial)))

    def inputs(self, x: Tensor) -> Tensor:
        """Input of the dictionary: `x`, or for diff_sae `x_tuned - x_base` with a model axis of 1."""
        if self.settings.architecture == "diff_sae":
            return x[:, 1:2] - x[:, 0:1]
        return x

    def code_norm(self) -> PerLatent:
        """`norm_j` of the scaled code `v_j = f_j * norm_j`, divided by the latent's sparsity weight."""
        norm = code_norm(self.decoder, self.settings.code_norm)
        if self.delta_ratio is not None:
            border = n_delta(self.settings)
            return torch.cat([norm[:border] / self.delta_ratio, norm[border:]])
        return norm if self.sparsity_weight is None else norm / self.sparsity_weight

    def scaled(self, code: Code) -> Code:
        """Scaled code v, which is ranked and compared with the threshold."""
        return code * self.code_norm()

    def positive_code(self, xn: Activations, latents: slice | Int[Tensor, " chunk"] = slice(None)) -> Tensor:
        """Code before any selection, `[token, chunk]`, of normalised activations, for the given latents."""
        pre = xn.flatten(1) @ self.encoder[latents].flatten(1).T + self.encoder_bias[latents]
        code = pre.relu()
        if self.log_gate is None:
            return code
        return torch.where(pre > self.log_gate[latents].exp(), code, 0)

    def encode(self, x: Activations, *, threshold: float | None = None) -> Code:
        """Code of raw activations where `v > threshold` (by default the crosscoder's)."""
        theta = self._threshold(threshold)
        code = self.positive_code(self.normaliser.normalise(self.inputs(x)))
        return torch.where(self.scaled(code) > theta, code, 0)

    @torch.no_grad()
    def encode_sparse(self, x: Activations, *, threshold: float | None = None) -> SparseCode:
        """`encode` as a list of active entries, from slices of the code matrix."""
        theta, norm = self._threshold(threshold), self.code_norm()
        xn = self.normaliser.normalise(self.inputs(x))
        tokens, latents, values = [], [], []
        for start in range(0, self.n_latents, LATENT_CHUNK):
            chunk = slice(start, min(start + LATENT_CHUNK, self.n_latents))
            code = self.positive_code(xn, chunk)
            token, latent = (code * norm[chunk] > theta).nonzero(as_tuple=True)
            tokens.append(token)
            latents.append(latent + start)
            values.append(code[token, latent])
        token, latent, value = torch.cat(tokens), torch.cat(latents), torch.cat(values)
        order = torch.argsort(token, stable=True)
        return SparseCode(token[order], latent[order], value[order], x.shape[0], self.n_latents)

    @torch.no_grad()
    def encode_normalised(self, xn: Activations) -> SparseCode:
        """Active entries of normalised activations, as `encode_sparse`, with less memory traffic.

        The unscaled code is compared with a slightly lowered bound per latent, so that the full matrix is
        written and scanned once; `v > threshold` then decides among the few entries above it.
        """
        norm, threshold = self.code_norm(), self.threshold
        floor = (threshold / norm * LOOSE).clamp(min=0)
        parts = [
            self._entries_above(xn[start : start + TOKEN_CHUNK], floor)
            for start in range(0, max(len(xn), 1), TOKEN_CHUNK)
        ]
        token = torch.cat([part[0] + TOKEN_CHUNK * i for i, part in enumerate(parts)])
        latent, value = torch.cat([part[1] for part in parts]), torch.cat([part[2] for part in parts])
        kept = value * norm[latent] > threshold
        return SparseCode(token[kept], latent[kept], value[kept], len(xn), self.n_latents)

    def decode_normalised(self, code: Code | SparseCode) -> Activations:
        """Reconstruction in the normalised space, bias included."""
        if isinstance(code, SparseCode):
            flat = nn.functional.embedding_bag(
                code.latent,
                self.decoder.flatten(1),
                code.row_starts(),
                per_sample_weights=code.value,
                mode="sum",
            )
        else:
            flat = code @ self.decoder.flatten(1)
        return (self.summed(flat) + self.decoder_bias.flatten()).unflatten(1, (self.n_models, self.d_model))

    def summed(self, reconstruction: Tensor) -> Tensor:
        """The sum over everybody who holds some of the latents: nobody else does (`core.shard`)."""
        return reconstruction

    def decode(self, code: Code | SparseCode) -> Activations:
        """Reconstruction `x_hat` in raw activation units (for diff_sae that of the difference)."""
        return self.normaliser.denormalise(self.decode_normalised(code))

    def forward(self, x: Activations) -> Activations:
        """`decode(encode(x))`."""
        return self.decode(self.encode(x))

    def save(self, path: str | Path) -> None:
        """Write `weights.safetensors` and `config.json` into the folder `path`."""
        checkpoint.write(Path(path), self._content())

    @classmethod
    def load(cls, path: str | Path, *, revision: str | None = None) -> Crosscoder:
        """Read a crosscoder from a folder or a Hugging Face hub id; ValueError for a damaged file."""
        if checkpoint.is_in_blocks(path):
            return cls.from_content(shard_files.read(path))
        return cls.from_content(checkpoint.read(path, revision=revision))

    @classmethod
    def from_content(cls, content: checkpoint.Content) -> Crosscoder:
        """The crosscoder of a checkpoint's content."""
        crosscoder = cls(
            content.dictionary, n_models=content.n_models, d_model=content.d_model, metadata=content.metadata
        )
        if "log_gate" in content.tensors:
            crosscoder.add_gate_(1.0)
        crosscoder.load_state_dict(content.tensors)
        return crosscoder

    def _entries_above(self, xn: Activations, floor: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Token, latent and code of the entries above `floor`, by (token, latent)."""
        tokens, latents, values = [], [], []
        flat = xn.flatten(1)
        for start in range(0, self.n_latents, LATENT_CHUNK):
            chunk = slice(start, min(start + LATENT_CHUNK, self.n_latents))
            if self.log_gate is None:
                code = torch.addmm(self.encoder_bias[chunk], flat, self.encoder[chunk].flatten(1).T)
            else:
                code = self.positive_code(xn, chunk)
            token, latent = (code > floor[chunk]).nonzero(as_tuple=True)
            tokens.append(token)
            latents.append(latent + start)
            values.append(code[token, latent])
        token = torch.cat(tokens)
        order = torch.argsort(token, stable=True)
        return token[order], torch.cat(latents)[order], torch.cat(values)[order]

    def _content(self) -> checkpoint.Content:
        """The content of this crosscoder's checkpoint."""
        tensors = {
            name: value.detach().to("cpu", torch.float32).contiguous()
            for name, value in self.state_dict().items()
        }
        return checkpoint.Content(self.settings, self.n_models, self.d_model, tensors, self.metadata)

    def _threshold(self, given: float | None) -> float:
        theta = float(self.threshold) if given is None else given
        if theta != theta:
            raise ValueError(
                "this crosscoder's inference threshold is not set (NaN); pass threshold=... to encode, "
                "or train it to the end (training sets the threshold)"
            )
        return theta
