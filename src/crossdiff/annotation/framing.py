"""Does the annotator name a category because it was asked for one? The framing control.

A swapped control holds one example each of different latents: nothing holds it together, and the right
answer is no category. It is asked about with a prompt that presupposes a concept, and with a neutral one in
which "none of these" is a full answer; both may answer with the same categories, `other` or
`uninterpretable`. How often each asserts a category says how far the labels of real latents are owed to the
question.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

from crossdiff.annotation.results import ANSWERED
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    from crossdiff.annotation.annotators import AnnotationRun
    from crossdiff.annotation.subjects import CategoryLike, Subject


class Asserted(TypedDict):
    """Controls asked about, controls with an answer, and answers that name a category."""

    asked: int
    answered: int
    asserted: int


def framing_control(
    run: AnnotationRun, scheme: Sequence[CategoryLike], swapped: Sequence[Subject]
) -> dict[str, Asserted]:
    """Framing -> how often it asserted a category of swapped controls; empty unless it is asked for."""
    found: dict[str, Asserted] = {}
    for framing, annotator in run.framings(scheme).items():
        answers = list(annotator.annotate(swapped))
        answered = [answer for answer in answers if answer.state in ANSWERED]
        found[framing] = {
            "asked": len(answers),
            "answered": len(answered),
            "asserted": sum(answer.category not in RESERVED for answer in answered),
        }
    return found


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
