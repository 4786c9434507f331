"""The annotation of one latent with its typed state, from one vote or several; a failed call is no label.

The framing control: does the annotator name a category because it was asked for one? A swapped control holds
one example each of different latents: nothing holds it together, and the right answer is no category. It is
asked about with a prompt that presupposes a concept, and with a neutral one in which "none of these" is a
full answer; both may answer with the same categories, `other` or `uninterpretable`. How often each asserts a
category says how far the labels of real latents are owed to the question.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Generic, Literal, TypedDict, TypeVar

from crossdiff.annotation.schema import Described
from crossdiff.taxonomy.scheme import (
    OTHER,  # noqa: F401  (users' annotators ask for both here)
    RESERVED,
    UNINTERPRETABLE,
)

VERSION = VARIANTS_VERSION = 1
Value = TypeVar("Value")

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
"""States whose category counts in the deltas; the others are counted beside the total."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """Label, category and confidence; `category` is None unless the state is answered.

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
        """One line of `annotations.jsonl`, with pair, latent and role in place of the blind key."""
        answer = asdict(self)
        del answer["key"]
        answer["keywords"], answer["evidence"] = list(self.keywords), list(self.evidence)
        return {"version": VERSION, "pair": pair, "latent": latent, "role": role, **answer, "class": parent}

    def variant_row(self, **known: Any) -> dict[str, Any]:
        """One line of `variants.jsonl`; the category is None unless the state is answered."""
        category = self.category if self.state in ANSWERED else None
        return {"version": VARIANTS_VERSION, **known, "state": self.state, "category": category}


@dataclass(frozen=True)
class Answer(Generic[Value]):
    """A value, or the state that says why there is none; `source` is the model asked."""

    state: State
    source: str
    value: Value | None = None


_WORST_FIRST: tuple[State, ...] = (
    "refused", "invalid", "truncated", "errored", "expired", "skipped_budget", "unlabelled",
)  # fmt: skip


def combine(
    key: str, votes: Sequence[Answer[Described]], *, scores: Mapping[str, float | None] | None = None
) -> Annotation:
    """The majority's category; ties go to the higher summed confidence, then to the earlier vote.

    Vote shares are over answered votes; `failed_votes` counts the others by state. Without an answer the
    state is the commonest failure. Where more votes were refused than answered, the latent is refused,
    because one vote in three is no majority.
    """
    answered = [(answer.value, answer.source) for answer in votes if answer.value is not None]
    failed = Counter(answer.state for answer in votes if answer.value is None)
    failures: dict[State, int] = {state: failed[state] for state in _WORST_FIRST if failed[state]}
    if not answered or failed["refused"] > len(answered):
        state = "refused" if answered else max(failures, key=lambda name: failures[name])
        return Annotation(key, state, votes[0].source, failed_votes=failures)
    counts = Counter(vote.category for vote, _ in answered)
    trust = Counter[str]()
    for vote, _ in answered:
        trust[vote.category] += vote.confidence
    category = max(counts, key=lambda name: (counts[name], trust[name]))
    agreeing = [(vote, source) for vote, source in answered if vote.category == category]
    vote, source = max(agreeing, key=lambda item: item[0].confidence)
    return Annotation(
        key=key,
        state="uninterpretable" if category == UNINTERPRETABLE else "ok",
        annotator=source,
        label=vote.label,
        description=vote.description,
        category=category,
        votes={name: count / len(answered) for name, count in sorted(counts.items())},
        failed_votes=failures,
        confidence=vote.confidence,
        evidence=tuple(sorted({index for voted, _ in agreeing for index in voted.evidence})),
        scores=dict(scores or {}),
    )


class Asserted(TypedDict):
    """Controls asked about, controls with an answer, and answers that name a category."""

    asked: int
    answered: int
    asserted: int


def asserted(answers: Iterable[Annotation]) -> Asserted:
    """How often the answers about swapped controls name a category."""
    states = [(answer.state in ANSWERED, answer.category not in RESERVED) for answer in answers]
    named = [names for answered, names in states if answered]
    return {"asked": len(states), "answered": len(named), "asserted": sum(named)}


def framing_sentence(found: dict[str, Asserted]) -> str | None:
    """What was asserted, with counts and Wilson's 95 % intervals; None where nothing was asked."""
    if not found:
        return None
    if not any(one["asked"] for one in found.values()):
        return "Framing control: this run has too few latents with documents to make swapped controls."
    told = " and ".join(
        f"a {framing} prompt asserted a category for {_counted(one)}" for framing, one in found.items()
    )
    return f"Framing control: of swapped controls, whose examples have nothing in common, {told}."


def _counted(one: Asserted) -> str:
    """`3 of 4 (75%, 30% to 95%; 1 unanswered)`."""
    from crossdiff.statistics.intervals import wilson  # imported late: a plan loads no numpy

    asserted, answered, missing = one["asserted"], one["answered"], one["asked"] - one["answered"]
    parts = []
    if answered:
        low, high = wilson(asserted, answered)
        parts.append(f"{asserted / answered:.0%}, {low:.0%} to {high:.0%}")
    if missing:
        parts.append(f"{missing} unanswered")
    return f"{asserted} of {answered} ({'; '.join(parts)})"
