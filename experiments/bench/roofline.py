"""What a training step must move and multiply on a GPU, and the time that takes at best: by arithmetic.

python -m crossdiff.bench roofline d_model=3584 n_latents=114688 k=100 batch=4096
"""

from __future__ import annotations

from pydantic import Field

from crossdiff.settings import Settings

MOMENT_BYTES = {"fp32": 4.0, "bf16": 2.0, "8bit": 1.0}


class Roofline(Settings):
    """Sizes, what the state is kept in, and the device; defaults: the paper's crosscoder on one H200.

    tflops: dense bfloat16 peak that products reach; bandwidth: bytes per second that copies reach.
    candidates: entries that pass the guess, per kept one. moments, rows: bytes of Adam's moments and of the
    gathered rows (decoder, activations, residual).
    """

    d_model: int = Field(default=3584, ge=1)
    n_models: int = Field(default=2, ge=1)
    n_latents: int = Field(default=114_688, ge=1)
    k: int = Field(default=100, ge=1)
    batch: int = Field(default=4096, ge=1)
    tflops: float = Field(default=790, gt=0)
    bandwidth: float = Field(default=4.3e12, gt=0)
    candidates: float = Field(default=1.15, ge=1)
    moments: str = "fp32"
    rows: str = "fp32"
    tokens: float = Field(default=200e6, gt=0)
    memory_gb: float = Field(default=80, gt=0)

    @property
    def width(self) -> int:
        """Activations of all models side by side."""
        return self.n_models * self.d_model

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.n_latents * (2 * self.width + 1) + self.width


def main(overrides: list[str]) -> dict:
    """Milliseconds per part, their sum over the encoder product, tokens per second, hours, memory in GB."""
    sizes = Roofline.model_validate(dict(item.split("=", 1) for item in overrides))
    return account(sizes)


def account(sizes: Roofline) -> dict:
    """The account of one step; gathered rows are counted as if no cache held any of them."""
    flops = 2.0 * sizes.batch * sizes.width * sizes.n_latents
    moved = traffic(sizes)
    milliseconds = {"encoder product": 1e3 * flops / (sizes.tflops * 1e12)}
    milliseconds |= {name: 1e3 * n_bytes / sizes.bandwidth for name, n_bytes in moved.items()}
    step = sum(milliseconds.values())
    rate = sizes.batch / step * 1e3
    return {
        "sizes": sizes.model_dump(),
        "flops": flops,
        "bytes": moved,
        "milliseconds": milliseconds,
        "step_ms": step,
        "ratio_to_encoder_product": step / milliseconds["encoder product"],
        "tokens_per_s": rate,
        "hours": sizes.tokens / rate / 3600,
        "memory_gb": memory(sizes),
        "fits": sum(memory(sizes).values()) <= sizes.memory_gb,
    }


def traffic(sizes: Roofline) -> dict[str, float]:
    """Bytes that each part reads and writes."""
    weights = float(sizes.n_latents * sizes.width)
    row = sizes.width * MOMENT_BYTES[sizes.rows]
    kept = sizes.k * sizes.batch
    active = min(kept, sizes.n_latents)
    moments = MOMENT_BYTES[sizes.moments]
    return {
        "encoder to bfloat16": weights * (4 + 2),
        "candidates": 3 * 2.0 * sizes.batch * sizes.n_latents,
        "re-scoring": sizes.candidates * kept * 4.0 * sizes.width,
        "decode": kept * row,
        "backward": 2 * kept * row + active * row + 2 * active * 4.0 * sizes.width,
        "gradient norm": 2 * active * 4.0 * sizes.width,
        "adam": 2 * weights * (2 * 4 + 4 * moments) + 2 * active * 4.0 * sizes.width,
    }


def memory(sizes: Roofline, *, chunk: int = 4096) -> dict[str, float]:
    """GB held during a step: state, gradients of the active rows, and what the batch needs."""
    kept, active = sizes.k * sizes.batch, min(sizes.k * sizes.batch, sizes.n_latents)
    batch = 4 * 4.0 * sizes.batch * sizes.width + 2.0 * chunk * (sizes.batch + sizes.width)
    return {
        "weights": 4 * sizes.parameters / 1e9,
        "moments": 2 * MOMENT_BYTES[sizes.moments] * sizes.parameters / 1e9,
        "gradients": 2 * active * 4.0 * sizes.width / 1e9,
        "batch": batch / 1e9,
        "entries": sizes.candidates * kept * 4 * (8 + 8 + 4) / 1e9,
    }
