"""Questions and their typed answers: send, read, repair once, fall back after a refusal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, Protocol, TypeVar, cast

from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.requests import Meter, Request
from crossdiff.annotation.prompts import REPAIR
from crossdiff.annotation.results import Answer, State
from crossdiff.annotation.schema import Unreadable, text_of

Value = TypeVar("Value")
MASKED, LEXICAL = "masked", "lexical"
QUOTED = 2000
"""Most characters of an unreadable reply in its repair request."""


class Transport(Protocol):
    """Fills the ledger with replies."""

    def prepare(self, requests: Sequence[Request]) -> None:
        """Check that requests can work, and measure what the estimate needs; costs nothing."""
        ...

    def fill(self, requests: Sequence[Request], *, description: str) -> None:
        """Return when every request has a reply or an outcome in the ledger."""
        ...


class ReplayTransport:
    """Sends nothing, so requests outside the ledger stay unanswered."""

    def prepare(self, requests: Sequence[Request]) -> None:
        """Nothing to do."""

    def fill(self, requests: Sequence[Request], *, description: str) -> None:
        """Nothing to do."""


@dataclass(frozen=True)
class Question(Generic[Value]):
    """How to build the request (for a model, masked or not), and how to read the reply."""

    build: Callable[[str, bool], Request]
    read: Callable[[Mapping[str, Any]], Value | Unreadable]


@dataclass
class Rounds:
    """Asks many questions at a time."""

    transport: Transport
    ledger: Ledger
    meter: Meter
    model: str
    fallback: tuple[str, ...] = ()
    seen: set[str] = field(default_factory=set)

    def ask(self, questions: Sequence[Question[Value]], *, description: str) -> list[Answer[Value]]:
        """One answer with a typed state per question, in order."""
        requests = [question.build(self.model, False) for question in questions]
        answers = self._round(questions, requests, source=self.model, description=description)
        for step in self.fallback:
            refused = [index for index, answer in enumerate(answers) if answer.state == "refused"]
            if not refused or step == LEXICAL:
                continue
            model = self.model if step == MASKED else step
            again = [questions[index] for index in refused]
            requests = [question.build(model, step == MASKED) for question in again]
            source = f"{model} (masked)" if step == MASKED else model
            what = f"{description}, refusals to {step}"
            replaced = self._round(again, requests, source=source, description=what)
            for index, answer in zip(refused, replaced, strict=True):
                answers[index] = answer
        return answers

    def announce(self, requests: Sequence[Request], *, what: str) -> None:
        """Print the expected cost of the missing answers, before any is sent."""
        missing = self.ledger.missing(requests)
        if missing and self.meter.prices is not None:
            self.transport.prepare(missing)
            cost = self.meter.expected(missing)
            sys.stderr.write(
                f"annotate: {len(missing):,} of {len(requests):,} {what} to ask for, about ${cost:.2f} "
                f"(prices of {self.meter.prices.as_of}; hard stop at ${self.meter.max_usd:.2f})\n"
            )

    def _round(
        self,
        questions: Sequence[Question[Value]],
        requests: Sequence[Request],
        *,
        source: str,
        description: str,
    ) -> list[Answer[Value]]:
        self._fill(requests, description)
        answers = [self._read(q, r, source) for q, r in zip(questions, requests, strict=True)]
        broken = [index for index, (_, problem) in enumerate(answers) if problem is not None]
        repairs = [self._repair(requests[index], cast(Unreadable, answers[index][1])) for index in broken]
        if repairs:
            self._fill(repairs, f"{description}, repairs")
        for index, request in zip(broken, repairs, strict=True):
            again, problem = self._read(questions[index], request, source)
            if again.state == "ok" or problem is not None:
                answers[index] = (again, problem)
        return [answer for answer, _ in answers]

    def _fill(self, requests: Sequence[Request], description: str) -> None:
        """Fill the ledger; earlier attempts at these requests count against the budget once."""
        fresh = sorted({request.key for request in requests} - self.seen)
        self.seen.update(fresh)
        self.meter.spent += self.ledger.spent(fresh)
        self.transport.fill(requests, description=description)

    def _read(
        self, question: Question[Value], request: Request, source: str
    ) -> tuple[Answer[Value], Unreadable | None]:
        """The answer, and the problem where a repair request may help."""
        message = self.ledger.reply(request.key)
        if message is None:
            return Answer(cast(State, self.ledger.outcome(request.key) or "unlabelled"), source), None
        value = question.read(message)
        if isinstance(value, Unreadable):
            return Answer(value.state, source), None if value.state == "refused" else value
        return Answer("ok", source, value), None

    def _repair(self, request: Request, problem: Unreadable) -> Request:
        """The request with the bad answer and its problem; twice `max_tokens` where the answer was cut."""
        bad_answer = text_of(self.ledger.reply(request.key) or {})[:QUOTED].strip()
        messages = (
            *request.messages,
            ("assistant", bad_answer or "(nothing)"),
            ("user", REPAIR.format(problem=problem.problem)),
        )
        room = request.max_tokens * (2 if problem.state == "truncated" else 1)
        return replace(request, messages=messages, max_tokens=room)
