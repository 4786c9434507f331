"""From settings to the annotator of a run, and to the other ways to label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.api.messages import MessagesAnnotator, example_set_hash
from crossdiff.annotation.api.requests import Meter, Prices, sha256
from crossdiff.annotation.api.rounds import LEXICAL, MASKED, ReplayTransport, Rounds, Transport
from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.prompts import FRAMINGS, Framing
from crossdiff.annotation.settings import (
    Annotator,
    AnnotatorSettings,
    AnthropicCompatible,
    Claude,
    ClaudeBatch,
    Lexical,
    MessagesSettings,
    OwnAnnotator,
    Replay,
    Transformers,
)
from crossdiff.annotation.subjects import CategoryLike, Document, Subject
from crossdiff.annotation.text_features import FeatureCache

LEDGER = "ledger.sqlite"
_RECORDED: dict[str, type[MessagesSettings]] = {
    settings.__name__: settings for settings in (Claude, ClaudeBatch, AnthropicCompatible)
}


@dataclass(frozen=True)
class AnnotationRun:
    """The latents of one run, and the settings and place of their annotator."""

    settings: AnnotatorSettings
    subjects: Sequence[Subject]
    background: Sequence[Document]
    seed: int
    store: Path
    device: str = "cpu"
    progress: bool = True

    @cached_property
    def _features(self) -> FeatureCache:
        """Features of the examples, read once for all lexical annotators of the run."""
        return FeatureCache()

    @cached_property
    def conversation(self) -> tuple[MessagesSettings, Rounds] | None:
        """Settings (of a replay: the recorded ones) and rounds of the run; one budget for all its questions.

        None for annotators without a server.
        """
        match self.settings:
            case Replay(ledger=path, run=run):
                ledger = Ledger(path, read_only=True)
                recorded = self._recorded(ledger, run)
                return recorded, _rounds(recorded, ReplayTransport(), ledger)
            case Claude() | AnthropicCompatible() as settings:
                rounds = open_rounds(settings, self.store, progress=self.progress)
                rounds.ledger.record_run(self._record(settings))
                return settings, rounds
        return None

    def annotator(self, scheme: Sequence[CategoryLike]) -> Annotator:
        """The annotator of the settings, for one scheme."""
        match self.settings:
            case Transformers() as settings:
                from crossdiff.annotation.local import TransformersAnnotator

                return TransformersAnnotator(settings, scheme, device=self.device)
            case OwnAnnotator() as settings:
                return settings.annotator(scheme, self.background, seed=self.seed)
            case Lexical() as settings:
                return self._lexical(settings, scheme)
        assert self.conversation is not None
        recorded, rounds = self.conversation
        return self._asking(recorded, scheme, rounds)

    def induce(self, *, sizes: tuple[int, int, int]) -> dict[str, Any]:
        """A taxonomy's classes from blind descriptions; `sizes` = (shuffles, classes, categories).

        With a server its taxonomy model sorts the descriptions; without one keywords are clustered.
        """
        from crossdiff.annotation import induction

        if self.conversation is None:
            keywords = self._lexical(Lexical(), ()).annotate(self.subjects)
            return induction.induce_from_words(list(keywords), n_classes=sizes[1], n_categories=sizes[2])
        recorded, rounds = self.conversation
        model = getattr(recorded, "taxonomy_model", recorded.model)
        if rounds.meter.prices is not None:
            rounds.meter.prices.rate(model)  # a model without a price is refused before money is spent
        once = recorded.model_copy(update={"scores": (), "n_votes": 1})
        described = self._asking(once, (), rounds).annotate(self.subjects)
        texts = [f"{answer.label}: {answer.description}" for answer in described if answer.state == "ok"]
        sorter = replace(rounds, model=model, fallback=())
        return induction.induce_with_model(recorded, sorter, texts, sizes=sizes, seed=self.seed)

    def variants(self, scheme: Sequence[CategoryLike]) -> dict[str, Annotator]:
        """Other defensible ways to label, by name, for the multiverse table of the comparison.

        Always two keyword readings, which are free: words near the activity, or cue words, alone. Other
        models and the masked prompt where `annotator.variants` names them, and then the lexical annotator
        too.
        """
        readings: dict[str, Annotator] = {
            "lexical, words near the activity": self._lexical(Lexical(floor=0.0), scheme),
            "lexical, cue words only": self._lexical(Lexical(definition_weight=0.0), scheme),
        }
        if isinstance(self.settings, Lexical):
            return readings
        made = {"lexical": self._lexical(Lexical(), scheme)} | readings
        if self.conversation is None:
            return made
        recorded, rounds = self.conversation
        for name in recorded.variants:
            masked = name == MASKED
            model = recorded.model if masked else name
            once = recorded.model_copy(update={"model": model, "n_votes": 1, "scores": (), "fallback": ()})
            alone = replace(rounds, model=model, fallback=())
            made[f"{model}, masked" if masked else model] = self._asking(once, scheme, alone, masked=masked)
        return made

    def framings(self, scheme: Sequence[CategoryLike]) -> dict[Framing, Annotator]:
        """The annotator asked in other words, once and without fallback; none unless `framing` is set."""
        if isinstance(self.settings, Transformers):
            if not self.settings.framing:
                return {}
            from crossdiff.annotation.local import TransformersAnnotator

            local = TransformersAnnotator(self.settings, scheme, device=self.device)
            return {framing: local.framed(framing) for framing in FRAMINGS}
        if self.conversation is None or not self.conversation[0].framing:
            return {}
        recorded, rounds = self.conversation
        once = recorded.model_copy(update={"n_votes": 1, "scores": (), "fallback": ()})
        asking = self._asking(once, scheme, replace(rounds, fallback=()))
        return {framing: replace(asking, framing=framing) for framing in FRAMINGS}

    def spent(self) -> float:
        """US dollars of this run's requests, earlier attempts included."""
        return 0.0 if self.conversation is None else self.conversation[1].meter.spent

    def close(self) -> None:
        """Close the ledger: until then SQLite keeps the last replies in a second file beside it."""
        opened = self.__dict__.get("conversation")  # not self.conversation, which would open one
        if opened:
            opened[1].ledger.close()

    def _lexical(self, settings: Lexical, scheme: Sequence[CategoryLike]) -> LexicalAnnotator:
        return LexicalAnnotator(settings, scheme, self.background, seed=self.seed, features=self._features)

    def _asking(
        self,
        settings: MessagesSettings,
        scheme: Sequence[CategoryLike],
        rounds: Rounds,
        *,
        masked: bool = False,
    ) -> MessagesAnnotator:
        return MessagesAnnotator(settings, scheme, self.background, rounds, self.seed, masked=masked)

    def _record(self, settings: MessagesSettings) -> dict[str, Any]:
        """The record for a replay: settings without this machine's limits, seed, hash of the documents."""
        left_out = set(type(settings).NOT_IDENTITY) - {"base_url"}
        left_out |= set() if settings.framing else {"framing"}  # so that earlier records keep their id
        return {
            "kind": type(settings).__name__,
            "settings": settings.model_dump(mode="json", exclude=left_out),
            "seed": self.seed,
            "subjects": subjects_hash(self.subjects),
        }

    def _recorded(self, ledger: Ledger, run: str | None) -> MessagesSettings:
        """The settings of a recorded run; ValueError where its documents or seed are others."""
        record = ledger.run_settings(run)
        ours, theirs = (self.seed, subjects_hash(self.subjects)), (record["seed"], record["subjects"])
        if ours != theirs:
            raise ValueError(
                f"the ledger's run has seed and documents {theirs}, this run has {ours}; replay it on the "
                "annotated documents, or annotate these anew"
            )
        return _RECORDED[record["kind"]].model_validate(record["settings"])


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
        from crossdiff.annotation.api.client import LiveTransport

        transport = LiveTransport(settings, ledger, meter, progress)
    return _rounds(settings, transport, ledger, meter)


def _rounds(
    settings: MessagesSettings, transport: Transport, ledger: Ledger, meter: Meter | None = None
) -> Rounds:
    return Rounds(
        transport, ledger, meter or Meter(None, settings.max_usd), settings.model, settings.fallback
    )


def _meter(settings: Claude | ClaudeBatch | AnthropicCompatible) -> Meter:
    """The run's meter; a compatible server is free unless the user gives its prices."""
    if isinstance(settings, AnthropicCompatible) and settings.prices is None:
        return Meter(None, settings.max_usd)
    prices = Prices.load(settings.prices)
    others = {*settings.fallback, *settings.variants} - {MASKED, LEXICAL}
    for model in (settings.model, *sorted(others)):
        prices.rate(model)
    return Meter(prices, settings.max_usd, batch=isinstance(settings, ClaudeBatch))


def subjects_hash(subjects: Sequence[Subject]) -> str:
    """Hash of all examples, in run order."""
    return sha256("\n".join(example_set_hash(subject) for subject in subjects))[:16]
