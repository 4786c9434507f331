"""The same latents labelled in other defensible ways, for the multiverse table of the comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from crossdiff.annotation.annotators import Job, build, conversation
from crossdiff.annotation.api.messages import MessagesAnnotator
from crossdiff.annotation.api.rounds import MASKED
from crossdiff.annotation.base import Annotator, OwnAnnotator
from crossdiff.annotation.lexical import LexicalAnnotator
from crossdiff.annotation.results import ANSWERED, Annotation
from crossdiff.annotation.settings import AnnotatorSettings, Lexical, Transformers
from crossdiff.annotation.subjects import CategoryLike

VERSION = 1


def variants(settings: AnnotatorSettings, scheme: Sequence[CategoryLike], job: Job) -> dict[str, Annotator]:
    """Annotators by name: keyword readings always (they are free), other models and prompts as asked for.

    A keyword reading differs in what it looks at: only words near the activity, or only cue words.
    """
    readings = {
        "lexical, words near the activity": Lexical(floor=0.0),
        "lexical, cue words only": Lexical(definition_weight=0.0),
    }
    made: dict[str, Annotator] = {
        name: LexicalAnnotator(reading, scheme, job.background, seed=job.seed)
        for name, reading in readings.items()
    }
    if isinstance(settings, Lexical):
        return made
    lexical = {"lexical": build(Lexical(), scheme, job)}
    silent = isinstance(settings, Transformers | OwnAnnotator)
    return lexical | (made if silent else made | _asked(settings, scheme, job))


def _asked(settings: Any, scheme: Sequence[CategoryLike], job: Job) -> dict[str, Annotator]:
    recorded, rounds = conversation(settings, job)
    found: dict[str, Annotator] = {}
    for name in recorded.variants:
        model = recorded.model if name == MASKED else name
        once = recorded.model_copy(update={"model": model, "n_votes": 1, "scores": (), "fallback": ()})
        spoken = replace(rounds, model=model, fallback=())
        label = f"{model}, masked" if name == MASKED else model
        found[label] = MessagesAnnotator(
            once, scheme, job.background, spoken, job.seed, masked=name == MASKED
        )
    return found


def variant_row(annotation: Annotation, known: Mapping[str, Any]) -> dict[str, Any]:
    """One line of `variants.jsonl`; the category is None unless the state is answered."""
    category = annotation.category if annotation.state in ANSWERED else None
    return {"version": VERSION, **known, "state": annotation.state, "category": category}
