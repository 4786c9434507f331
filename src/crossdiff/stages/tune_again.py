"""Stage `tune_again` (toy only): pt tuned once more, on other chats of the same behaviours (it_2, ...)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from crossdiff.io.tables import write_json
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    from transformers import Gemma2ForCausalLM, PreTrainedTokenizerFast

    from crossdiff.organisms.language import Category

VERSION = 1


class TuneAgainInputs(Settings):
    """The toy as its triple was made, and the number of the tuning: 1 is `it` itself."""

    toy: ToySettings
    number: int = Field(ge=2)

    @property
    def name(self) -> str:
        """Of the model: it_2, it_3, ..."""
        return f"it_{self.number}"


def run(
    inputs: TuneAgainInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write `model/` (a model folder with its tokenizer) and `rates.json`, as the organism has it of `it`.

    The phase is that of `it`; the chats and the replayed web documents are drawn from the number too.
    """
    from transformers import AutoTokenizer, Gemma2ForCausalLM

    from crossdiff.organisms.language import build_language
    from crossdiff.organisms.phases import fine_tune

    folder, settings = parents["organism"] / "models" / "pt", inputs.toy
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = Gemma2ForCausalLM.from_pretrained(folder, attn_implementation="eager")
    language = build_language(settings)
    loss = fine_tune(
        model,
        tokenizer,
        language,
        settings,
        anchor={name: weight.detach().clone() for name, weight in model.named_parameters()},
        number=inputs.number,
        progress=runtime.progress,
    )
    model.save_pretrained(draft / "model")
    tokenizer.save_pretrained(draft / "model")
    return {"loss": loss, **_rates(inputs, model, tokenizer, language, draft)}


def _rates(
    inputs: TuneAgainInputs,
    model: Gemma2ForCausalLM,
    tokenizer: PreTrainedTokenizerFast,
    language: Sequence[Category],
    draft: Path,
) -> dict[str, float | None]:
    """Writes the rates; mean share of answers that show what `it` was tuned to show, and what it was not."""
    from crossdiff.organisms.models import behaviour_rates

    table = behaviour_rates(
        {inputs.name: model},
        tokenizer,
        language,
        places=inputs.toy.places,
        n_prompts=inputs.toy.n_rate_prompts,
        seed=inputs.toy.seed,
    )
    write_json(table, draft / "rates.json")
    means = {}
    for name, planted in (("rate_planted", True), ("rate_absent", False)):
        shown = [r[f"measured_{inputs.name}"] for r in table["behaviours"] if r["in_reference"] is planted]
        means[name] = sum(shown) / len(shown) if shown else None
    return means


STAGE = Stage(
    "tune_again",
    version=VERSION,
    run=run,
    reads=("organism",),
    writes="(toy only) pt tuned once more, as a model folder",
    resources=needs(cpus=4, memory_gb=16, hours=2),
)
