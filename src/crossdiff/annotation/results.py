"""The answer for one latent, with its typed state: a failed call is a state, never a label."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

VERSION = 1
OTHER = "other"
UNINTERPRETABLE = "uninterpretable"

State = Literal[
    "ok",
    "uninterpretable",
    "refused",
    "truncated",
    "invalid",
    "errored",
    "expired",
    "skipped_budget",
    "unlabelled",
]
ANSWERED: frozenset[str] = frozenset({"ok", "uninterpretable"})
"""States whose category counts in the deltas; all others are listed outside the total."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Label, category and how sure; `category` is None unless the state is answered.

    `votes` are shares over independent answers and sum to 1, `failed_votes` counts those without an answer
    by state; `evidence` are indices of examples; `scores` are figures on held-out examples, absent where not
    computed (detection and fuzz: balanced accuracy, 1/2 by chance; intruder: 1 or 0, 1 in 5 by chance).
    """

    key: str
    state: State
    annotator: str
    label: str | None = None
    description: str | None = None
    category: str | None = None
    votes: dict[str, float] = field(default_factory=dict)
    failed_votes: dict[State, int] = field(default_factory=dict)
    confidence: Literal[1, 2, 3, 4, 5] | None = None
    keywords: tuple[str, ...] = ()
    evidence: tuple[int, ...] = ()
    scores: dict[str, float | None] = field(default_factory=dict)

    def row(self, *, pair: str, latent: int, role: str, parent: str | None) -> dict[str, Any]:
        """One line of `annotations.jsonl`; the blind key is replaced by what it stood for."""
        answer = asdict(self)
        del answer["key"]
        answer["keywords"], answer["evidence"] = list(self.keywords), list(self.evidence)
        return {"version": VERSION, "pair": pair, "latent": latent, "role": role, **answer, "class": parent}
