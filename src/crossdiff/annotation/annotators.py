"""From settings to an annotator: the one place that knows all of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.messages import MessagesAnnotator, example_set_hash
from crossdiff.annotation.api.prices import Meter, Prices
from crossdiff.annotation.api.requests import sha256
from crossdiff.annotation.api.rounds import LEXICAL, MASKED, ReplayTransport, Rounds, Transport
from crossdiff.annotation.base import Annotator, OwnAnnotator
from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.settings import (
    AnnotatorSettings,
    AnthropicCompatible,
    Claude,
    ClaudeBatch,
    Lexical,
    MessagesSettings,
    Replay,
    Transformers,
)
from crossdiff.annotation.subjects import CategoryLike, Document, Subject

LEDGER = "ledger.sqlite"
_RECORDED: dict[str, type[MessagesSettings]] = {
    settings.__name__: settings for settings in (Claude, ClaudeBatch, AnthropicCompatible)
}


@dataclass(frozen=True)
class Job:
    """What every annotator works on, and where."""

    subjects: Sequence[Subject]
    background: Sequence[Document]
    seed: int
    store: Path
    device: str = "cpu"
    progress: bool = True
    opened: dict[str, tuple[MessagesSettings, Rounds]] = field(default_factory=dict)
    """The job's one conversation, so that induction, votes, scores and variants share one budget."""

    def spent(self) -> float:
        """US dollars of this job's requests, those of earlier runs of it included."""
        return sum(rounds.meter.spent for _, rounds in self.opened.values())


def build(settings: AnnotatorSettings, scheme: Sequence[CategoryLike], job: Job) -> Annotator:
    """The annotator that `settings` describe, for one scheme and one job."""
    match settings:
        case Lexical():
            return LexicalAnnotator(settings, scheme, job.background, seed=job.seed)
        case Transformers():
            from crossdiff.annotation.local import TransformersAnnotator

            return TransformersAnnotator(settings, scheme, device=job.device)
        case OwnAnnotator():
            return settings.annotator(scheme, job.background, seed=job.seed)
        case _:
            recorded, rounds = conversation(settings, job)
            return MessagesAnnotator(recorded, scheme, job.background, rounds, job.seed)


def induce(settings: AnnotatorSettings, job: Job, *, sizes: tuple[int, int, int]) -> dict[str, Any]:
    """A taxonomy's classes from blind descriptions; `sizes` = (shuffles, classes, categories).

    Annotators that write descriptions sort them with their taxonomy model; others cluster keywords.
    """
    from crossdiff.annotation import induction

    match settings:
        case Lexical() | Transformers() | OwnAnnotator():
            keywords = build(Lexical(), (), job).annotate(job.subjects)
            return induction.induce_from_words(list(keywords), n_classes=sizes[1], n_categories=sizes[2])
        case _:
            recorded, rounds = conversation(settings, job)
            model = getattr(recorded, "taxonomy_model", recorded.model)
            if rounds.meter.prices is not None:
                rounds.meter.prices.rate(model)  # a model without a price is refused before money is spent
            once = recorded.model_copy(update={"scores": (), "n_votes": 1})
            described = MessagesAnnotator(once, (), job.background, rounds, job.seed).annotate(job.subjects)
            texts = [f"{found.label}: {found.description}" for found in described if found.state == "ok"]
            sorter = replace(rounds, model=model, fallback=())
            return induction.induce_with_model(recorded, sorter, texts, sizes=sizes, seed=job.seed)


def conversation(
    settings: Claude | ClaudeBatch | AnthropicCompatible | Replay, job: Job
) -> tuple[MessagesSettings, Rounds]:
    """The settings of the run (those recorded in the ledger for a replay) and its rounds of questions."""
    identity = json.dumps(settings.identity(), sort_keys=True)
    if identity not in job.opened:
        job.opened[identity] = _open(settings, job)
    return job.opened[identity]


def _open(
    settings: Claude | ClaudeBatch | AnthropicCompatible | Replay, job: Job
) -> tuple[MessagesSettings, Rounds]:
    if isinstance(settings, Replay):
        ledger = Ledger(settings.ledger, read_only=True)
        recorded = _recorded(ledger, settings.run, job)
        return recorded, _rounds(recorded, ReplayTransport(), ledger)
    rounds = open_rounds(settings, job.store, progress=job.progress)
    rounds.ledger.record_run(_run_record(settings, job))
    return settings, rounds


def open_rounds(
    settings: Claude | ClaudeBatch | AnthropicCompatible, store: Path, *, progress: bool
) -> Rounds:
    """Questions to a server, through the store's ledger and within the settings' budget."""
    ledger, meter = Ledger(store / LEDGER), _meter(settings)
    ledger.mend(meter.reserve_of)
    transport: Transport
    if isinstance(settings, ClaudeBatch):
        from crossdiff.annotation.api.batch import BatchTransport

        transport = BatchTransport(settings, ledger, meter, progress)
    else:
        from crossdiff.annotation.api.one_by_one import LiveTransport

        transport = LiveTransport(settings, ledger, meter, progress)
    return _rounds(settings, transport, ledger, meter)


def _rounds(
    settings: MessagesSettings, transport: Transport, ledger: Ledger, meter: Meter | None = None
) -> Rounds:
    return Rounds(
        transport, ledger, meter or Meter(None, settings.max_usd), settings.model, settings.fallback
    )


def _meter(settings: Claude | ClaudeBatch | AnthropicCompatible) -> Meter:
    """Prices of the provider; a compatible server is free unless the user gives its prices."""
    if isinstance(settings, AnthropicCompatible) and settings.prices is None:
        return Meter(None, settings.max_usd)
    prices = Prices.load(settings.prices)
    others = {*settings.fallback, *settings.variants} - {MASKED, LEXICAL}
    for model in (settings.model, *sorted(others)):
        prices.rate(model)
    return Meter(prices, settings.max_usd, batch=isinstance(settings, ClaudeBatch))


def _run_record(settings: MessagesSettings, job: Job) -> dict[str, Any]:
    """What a replay needs: settings without limits of this machine, seed, and the documents' hash."""
    return {
        "kind": type(settings).__name__,
        "settings": settings.model_dump(mode="json", exclude=set(type(settings).NOT_IDENTITY) - {"base_url"}),
        "seed": job.seed,
        "subjects": subjects_hash(job.subjects),
    }


def _recorded(ledger: Ledger, run: str | None, job: Job) -> MessagesSettings:
    record = ledger.run_settings(run)
    found, wanted = (job.seed, subjects_hash(job.subjects)), (record["seed"], record["subjects"])
    if found != wanted:
        raise ValueError(
            f"the ledger's run is of seed and documents {wanted}, these are {found}; replay it on the "
            "documents that were annotated, or annotate these anew"
        )
    return _RECORDED[record["kind"]].model_validate(record["settings"])


def subjects_hash(subjects: Sequence[Subject]) -> str:
    """Hash of all examples, in job order."""
    return sha256("\n".join(example_set_hash(subject) for subject in subjects))[:16]
