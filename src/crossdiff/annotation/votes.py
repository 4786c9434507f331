"""Independent votes on one latent combined into one annotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from crossdiff.annotation.results import UNINTERPRETABLE, Annotation, State
from crossdiff.annotation.rounds import Answer
from crossdiff.annotation.schema import Described

_WORST_LAST: tuple[State, ...] = (
    "refused", "invalid", "truncated", "errored", "expired", "skipped_budget", "unlabelled",
)  # fmt: skip


def combine(
    key: str, votes: Sequence[Answer[Described]], *, scores: Mapping[str, float | None] | None = None
) -> Annotation:
    """The majority's category; ties go to the higher summed confidence, then to the earlier vote.

    Vote shares are over votes that answered; without any, the commonest failure is the state.
    """
    answered = [(answer.value, answer.source) for answer in votes if answer.value is not None]
    if not answered:
        states = Counter(answer.state for answer in votes)
        state = max(_WORST_LAST, key=lambda name: (states[name], -_WORST_LAST.index(name)))
        return Annotation(key, state, votes[0].source)
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
        confidence=vote.confidence,
        evidence=tuple(sorted({index for voted, _ in agreeing for index in voted.evidence})),
        scores=dict(scores or {}),
    )
