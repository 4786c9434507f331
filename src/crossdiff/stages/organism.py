"""Stage `organism`: the toy triple, its corpus and its planted behaviours."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crossdiff.io.tables import write_json
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

VERSION = 3


class OrganismInputs(Settings):
    """What determines the triple; `seed` replaces `toy.seed`."""

    toy: ToySettings
    seed: int = 0


def run(inputs: OrganismInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Train pt, it and simpo; write models/, corpus/, planted.json, document_categories.json, rates.json."""
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
    categories = write_corpus(language, settings, draft / "corpus")
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
    return _figures(triple.losses, rates["behaviours"], n_documents=len(categories))


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
