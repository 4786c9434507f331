"""What two models' logits say of each other: which way and how often each vocabulary token differs, and KL.

Counts as in logit difference mining (Diff Mining, ICLR 2026, iclr.cc/virtual/2026/10019308): share of
positions with a positive logit difference, occurrence among the K largest. A raw logit has a constant of its
own at every position, which softmax ignores; so differences of log-probabilities stand beside those of raw
logits. The K largest are the same for both.
`topics` groups the tokens that rise in the same documents.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from jaxtyping import Float, Float64, Int
from torch import Tensor


@dataclass(frozen=True)
class Change:
    """What changes from base to tuned at the positions of one document.

    difference   log-probability of every token, tuned - base, in nats
    raw          the same of the logits
    top, values  the K tokens whose log-probability rises most, and by how much (0 where it does not rise)
    bottom       the K tokens whose log-probability falls most; -1 where it does not fall
    nll          negative log-probability of the token that follows, base and tuned
    kl           KL(tuned || base) of the next token
    """

    difference: Float[Tensor, "position vocabulary"]
    raw: Float[Tensor, "position vocabulary"]
    top: Int[Tensor, "position k"]
    values: Float[Tensor, "position k"]
    bottom: Int[Tensor, "position k"]
    nll: Float[Tensor, "model position"]
    kl: Float[Tensor, " position"]


def change_of(
    base: Float[Tensor, "position vocabulary"],
    tuned: Float[Tensor, "position vocabulary"],
    following: Int[Tensor, " position"],
    *,
    k: int,
) -> Change:
    """The change from float32 logits; a token that both models exclude (-inf) does not differ.

    ValueError where the logits of a model give no probabilities (NaN, +inf, or every token excluded).
    """
    logs = [_log_probabilities(logits, model) for logits, model in ((base, "base"), (tuned, "tuned"))]
    difference, raw = (torch.nan_to_num(t - b, nan=0.0) for b, t in (logs, (base.float(), tuned.float())))
    k = min(k, difference.shape[-1])
    values, top = difference.topk(k, dim=-1)
    least, bottom = difference.topk(k, dim=-1, largest=False)
    nll = torch.stack([-each.gather(-1, following[:, None]).squeeze(-1) for each in logs])
    probability = logs[1].exp()
    kl = torch.where(probability > 0, probability * difference, 0.0).sum(dim=-1)
    return Change(difference, raw, top, values.clamp(min=0), bottom.where(least < 0, -1), nll, kl)


def _log_probabilities(
    logits: Float[Tensor, "position vocabulary"], model: str
) -> Float[Tensor, "position vocabulary"]:
    """Log-probabilities; a NaN among them would pass for a token that does not differ."""
    logs = torch.log_softmax(logits.float(), dim=-1)
    wrong = logs.isnan().any(dim=-1)
    if wrong.any():
        raise ValueError(
            f"the {model} model predicts NaN or infinity at {int(wrong.sum())} of {len(wrong)} positions of "
            "a document, so its outputs say nothing; load it with dtype=float32, and check its weights"
        )
    return logs


@dataclass
class TokenSums:
    """Per vocabulary token, over positions; adds up from document to document and from part to part.

    raised, lowered   positions where its log-probability rises, falls
    positive          positions with a positive difference of raw logits
    top, bottom       positions where it is among the K that rise (fall) most
    top_documents     documents where it is among the K that rise most at least once
    total             sum of the differences of its log-probability, in nats
    """

    raised: Int[Tensor, " vocabulary"]
    lowered: Int[Tensor, " vocabulary"]
    positive: Int[Tensor, " vocabulary"]
    top: Int[Tensor, " vocabulary"]
    bottom: Int[Tensor, " vocabulary"]
    top_documents: Int[Tensor, " vocabulary"]
    total: Float64[Tensor, " vocabulary"]

    @classmethod
    def empty(cls, n_vocabulary: int) -> TokenSums:
        """No position yet."""
        names = [field.name for field in fields(cls)]
        zeros = {name: torch.zeros(n_vocabulary, dtype=torch.int64) for name in names}
        return cls(**zeros | {"total": torch.zeros(n_vocabulary, dtype=torch.float64)})

    def add_document(self, change: Change) -> None:
        """Count one document."""
        n_vocabulary = len(self.total)
        top = change.top[change.values > 0].cpu()
        bottom = change.bottom[change.bottom >= 0].cpu()
        counted = torch.bincount(top, minlength=n_vocabulary)
        self.raised += (change.difference > 0).sum(dim=0).cpu()
        self.lowered += (change.difference < 0).sum(dim=0).cpu()
        self.positive += (change.raw > 0).sum(dim=0).cpu()
        self.top += counted
        self.bottom += torch.bincount(bottom, minlength=n_vocabulary)
        self.top_documents += counted > 0
        self.total += change.difference.sum(dim=0, dtype=torch.float64).cpu()

    def add(self, other: TokenSums) -> None:
        """Add the counts of other documents."""
        for field in fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))

    def tensors(self) -> dict[str, Tensor]:
        """For a safetensors file."""
        return {field.name: getattr(self, field.name) for field in fields(self)}


EPSILON = 1e-9


@dataclass(frozen=True)
class Topics:
    """X is close to `codes @ directions`, both non-negative; directions have length 1.

    share_explained is 1 - |X - codes @ directions|^2 / |X|^2.
    """

    codes: Float[Tensor, "row topic"]
    directions: Float[Tensor, "topic column"]
    share_explained: float


def find_topics(matrix: Tensor, n_topics: int, *, seed: int, n_steps: int = 100) -> Topics:
    """Non-negative matrix factorisation of a sparse float32 matrix [row, column] under the squared error.

    Multiplicative updates (Lee and Seung 2001, NIPS 13, theorem 1); they never raise the error. The start is
    random and positive, drawn from `seed`; another seed can find other topics.
    """
    generator = torch.Generator().manual_seed(seed)
    n_rows, n_columns = matrix.shape
    squared = float(matrix.coalesce().values().square().sum())
    scale = (float(torch.sparse.sum(matrix)) / (n_rows * n_columns * n_topics)) ** 0.5
    codes = scale * (torch.rand(n_rows, n_topics, generator=generator) + 0.1)
    directions = scale * (torch.rand(n_topics, n_columns, generator=generator) + 0.1)
    turned = matrix.t().coalesce()
    for _ in range(n_steps):
        directions = directions * (turned @ codes).T / (codes.T @ codes @ directions + EPSILON)
        codes = codes * (matrix @ directions.T) / (codes @ (directions @ directions.T) + EPSILON)
    length = directions.norm(dim=1, keepdim=True).clamp(min=EPSILON)
    directions, codes = directions / length, codes * length.T
    crossed = float((codes * (matrix @ directions.T)).double().sum())
    fitted = float(((codes.T @ codes).double() * (directions @ directions.T).double()).sum())
    left = squared - 2 * crossed + fitted
    return Topics(codes, directions, 1 - left / squared if squared else float("nan"))
