"""Independent votes on one latent combined into one annotation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from crossdiff.annotation.api.rounds import Answer
from crossdiff.annotation.results import UNINTERPRETABLE, Annotation, State
from crossdiff.annotation.schema import Described

_WORST_FIRST: tuple[State, ...] = (
    "refused", "invalid", "truncated", "errored", "expired", "skipped_budget", "unlabelled",
)  # fmt: skip


def combine(
    key: str, votes: Sequence[Answer[Described]], *, scores: Mapping[str, float | None] | None = None
) -> Annotation:
    """The majority's category; ties go to the higher summed confidence, then to the earlier vote.

    Vote shares are over votes that answered; `failed_votes` counts the others by state. Without any answer
    the commonest failure is the state; where more votes were refused than answered, the latent is refused:
    toxic documents are refused most, and what one vote in three says of them is no majority.
    """
    answered = [(answer.value, answer.source) for answer in votes if answer.value is not None]
    failed = Counter(answer.state for answer in votes if answer.value is None)
    told: dict[State, int] = {state: failed[state] for state in _WORST_FIRST if failed[state]}
    if not answered or failed["refused"] > len(answered):
        state = "refused" if answered else max(told, key=lambda name: told[name])
        return Annotation(key, state, votes[0].source, failed_votes=told)
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
        failed_votes=told,
        confidence=vote.confidence,
        evidence=tuple(sorted({index for voted, _ in agreeing for index in voted.evidence})),
        scores=dict(scores or {}),
    )
