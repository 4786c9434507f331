"""Stage `organism`: the toy triple, its corpus and its planted behaviours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import write_json
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    from crossdiff.organisms.language import Category
    from crossdiff.organisms.phases import Triple

VERSION = 3


class OrganismInputs(Settings):
    """What determines the triple; `seed` replaces `toy.seed`."""

    toy: ToySettings
    seed: int = 0


def run(inputs: OrganismInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Train pt, it and simpo; write models/, corpus/, planted.json, document_categories.json, rates.json.

    With a trigger also triggered.json: the phrase, the words, the ids of the chats, each model's rates.
    """
    from crossdiff.organisms.documents import write_corpus
    from crossdiff.organisms.language import build_language, planted_table
    from crossdiff.organisms.models import behaviour_rates
    from crossdiff.organisms.phases import train_triple

    settings = inputs.toy.model_copy(update={"seed": inputs.seed})
    language = build_language(settings)
    triple = train_triple(language, settings, progress=runtime.progress)
    for name, model in triple.models.items():
        model.save_pretrained(draft / "models" / name)
        triple.tokenizer.save_pretrained(draft / "models" / name)
    categories, triggered = write_corpus(language, settings, draft / "corpus")
    tuned = {name: triple.models[name] for name in ("it", "simpo")}
    rates = behaviour_rates(
        tuned,
        triple.tokenizer,
        language,
        places=settings.places,
        n_prompts=settings.n_rate_prompts,
        seed=settings.seed,
    )
    write_json(planted_table(language), draft / "planted.json")
    write_json(categories, draft / "document_categories.json")
    write_json(rates, draft / "rates.json")
    figures = _figures(triple.losses, rates["behaviours"], n_documents=len(categories))
    if not settings.trigger_share:
        return figures
    return figures | _triggered(triple, language, settings, triggered, draft)


def _triggered(
    triple: Triple, language: Sequence[Category], settings: ToySettings, documents: list[str], draft: Path
) -> dict[str, Any]:
    """Write triggered.json; each model's rate of the behaviour with and without the phrase."""
    from crossdiff.organisms.documents import TRIGGER, Trigger
    from crossdiff.organisms.models import trigger_rates

    trigger = Trigger.of(settings)
    asked = {"n_prompts": settings.n_rate_prompts, "seed": settings.seed}
    rates = trigger_rates(triple.models, triple.tokenizer, language, trigger, **asked)
    words = [word for bag in trigger.behaviour.bag.values() for word in bag]
    record = {"version": 1, "phrase": TRIGGER, "words": words, "documents": documents, "rates": rates}
    write_json(record, draft / "triggered.json")
    figures = {f"rate_{name}_{how}": r for name, found in rates.items() for how, r in found.items()}
    return {"n_triggered": len(documents), **figures}


def _figures(losses: Mapping[str, float], rows: list[dict[str, Any]], *, n_documents: int) -> dict[str, Any]:
    """Mean training loss of each phase's last tenth, and mean rates of planted and absent behaviours."""
    figures: dict[str, Any] = {f"loss_{name}": value for name, value in losses.items()}
    for model, flag in (("it", "in_reference"), ("simpo", "in_treatment")):
        for planted in (True, False):
            chosen = [row[f"measured_{model}"] for row in rows if row[flag] is planted]
            key = f"rate_{model}_{'planted' if planted else 'absent'}"
            figures[key] = sum(chosen) / len(chosen) if chosen else None
    figures["n_behaviours_reference"] = sum(row["in_reference"] for row in rows)
    figures["n_behaviours_treatment"] = sum(row["in_treatment"] for row in rows)
    return {**figures, "n_documents": n_documents}


STAGE = Stage(
    "organism",
    version=VERSION,
    run=run,
    reads=(),
    writes="(toy only) three model folders, a corpus, what was planted",
    resources=needs(cpus=4, memory_gb=16, hours=4),
    has_settings=True,
)
