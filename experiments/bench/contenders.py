"""What the step benchmark runs: one closure per contender, on weights and moments that all share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import cycle
from typing import Literal

import torch

from crossdiff.core import dense
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dense import StepPlan
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparse import BatchTopKStep, SparseRowAdam
from crossdiff.core.sparse.backends import Backend
from crossdiff.core.sparsity import BatchTopK

Encode = Literal["float32", "bfloat16"]
RATE = 1e-5


@dataclass
class Workload:
    """A crosscoder, four batches of sparse synthetic activations, and Adam's moments."""

    d_model: int
    n_latents: int
    k: int
    batch: int
    n_models: int = 2
    device: str = "cpu"
    crosscoder: Crosscoder = field(init=False)
    batches: list[torch.Tensor] = field(init=False)

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        dictionary = DictionarySettings(n_latents=self.n_latents, initial_norm=1.0)
        self.crosscoder = Crosscoder(dictionary, n_models=self.n_models, d_model=self.d_model)
        self.crosscoder.initialise_(generator)
        self.crosscoder.to(self.device)
        self.batches = [self._activations(generator).to(self.device) for _ in range(4)]
        self._moments = SparseRowAdam(self.crosscoder.parameters())

    def _activations(self, generator: torch.Generator, *, n_true: int = 4096, l0: int = 24) -> torch.Tensor:
        """Sums of `l0` of `n_true` directions shared by the models, plus noise; mean norm sqrt(d_model)."""
        directions = torch.randn(n_true, self.d_model, generator=torch.Generator().manual_seed(1))
        chosen = torch.randint(n_true, (self.batch, l0), generator=generator)
        shared = torch.nn.functional.embedding_bag(chosen, directions, mode="sum")
        noise = torch.randn(self.batch, self.n_models, self.d_model, generator=generator)
        x = shared[:, None, :] + 0.3 * shared.std() * noise
        return x * (self.d_model**0.5 / x.norm(dim=2).mean(dim=0)[:, None])

    def plan(self, *, n_dead: int = 0) -> StepPlan:
        """BatchTopK with the un-squared loss; `n_dead` latents, evenly spread, are dead."""
        dead = torch.linspace(0, self.n_latents - 1, n_dead, device=self.device).long()
        return StepPlan(
            BatchTopK(k=self.k), self.k, 0.0, loss="norm",
            auxiliary=1 / 32, auxiliary_k=self.d_model // 2, dead=dead,
        )  # fmt: skip

    def share_moments(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Let an optimizer work on the moments that all contenders share."""
        optimizer.state = self._moments.state
        return optimizer


def encoder_product(work: Workload, dtype: torch.dtype) -> Callable[[], None]:
    """`x W^T` into a matrix that is there already, from weights already in `dtype`."""
    weight = work.crosscoder.encoder.detach().flatten(1).to(dtype)
    x = work.batches[0].flatten(1).to(dtype)
    out = torch.empty(work.batch, work.n_latents, dtype=dtype, device=work.device)

    def run() -> None:
        torch.mm(x, weight.T, out=out)

    return run


def dense_step(work: Workload) -> Callable[[], None]:
    """Autograd over full matrices, clipping, PyTorch's fused Adam."""
    batches, plan = cycle(work.batches), work.plan()
    parameters = list(work.crosscoder.parameters())
    optimizer = work.share_moments(torch.optim.Adam(parameters, lr=RATE, fused=True))

    def run() -> None:
        dense.gradients(work.crosscoder, next(batches), plan)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return run


def sparse_step(work: Workload, *, encode: Encode, backend: Backend, n_dead: int = 0) -> Callable[[], None]:
    """Our step, with the same semantics; `n_dead` latents take part in AuxK."""
    batches, plan = cycle(work.batches), work.plan(n_dead=n_dead)
    step = BatchTopKStep(encode=encode, backend=backend)
    optimizer = work.share_moments(
        SparseRowAdam(work.crosscoder.parameters(), lr=RATE, max_norm=1.0, backend=backend)
    )

    def run() -> None:
        step.gradients(work.crosscoder, next(batches), plan)
        optimizer.step()
        optimizer.zero_grad()

    return run
