"""Writing a crosscoder, with a card, in the formats that other tools read."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.crosscoders import neelnanda, saelens
from crossdiff.io.interop import save_dictionary_learning
from crossdiff.io.tables import write_text

WrittenFormat = Literal["dictionary_learning", "crossdiff", "saelens", "neelnanda"]

HOW_TO_READ = {
    "crossdiff": "`crossdiff.Crosscoder.load(folder)`",
    "dictionary_learning": "`dictionary_learning`'s `BatchTopKCrossCoder.from_pretrained(folder)` "
    "(`CrossCoder` where config.json says so)",
    "saelens": "`sae_lens.SAE.load_from_disk(folder)`: one JumpReLU SAE on the activations of both models "
    "side by side, base first: `torch.cat([x_base, x_tuned], dim=-1)`, of width 2 * d_model",
    "neelnanda": "`CrossCoder` of neelnanda-io/Crosscoders, on activations that were multiplied by "
    "`activation_scale` of cfg.json, one factor per model",
}


def write_crosscoder(
    crosscoder: Crosscoder,
    folder: Path,
    format: WrittenFormat,
    *,
    layer: int | None,
    facts: Mapping[str, str],
) -> None:
    """Write the files of that format and `README.md`; ValueError where the format cannot store it.

    `facts` are the card's, in their order: models, data, figures. Codes and reconstructions are those
    of the crosscoder, up to float32 rounding.
    """
    folder.mkdir(parents=True, exist_ok=True)
    match format:
        case "crossdiff":
            crosscoder.save(folder)
        case "dictionary_learning":
            save_dictionary_learning(crosscoder, folder)
        case "saelens":
            saelens.write(crosscoder, folder, layer=layer)
        case "neelnanda":
            neelnanda.write(crosscoder, folder, layer=layer)
    write_text(card(crosscoder, format, layer=layer, facts=facts), folder / "README.md")


def card(
    crosscoder: Crosscoder, format: WrittenFormat, *, layer: int | None, facts: Mapping[str, str]
) -> str:
    """The text of `README.md`, for the Hugging Face hub."""
    library = "saelens" if format == "saelens" else "crossdiff"
    rows = {
        "Models, base first": facts.get("Models, base first", "not recorded"),
        "Layer": "not recorded" if layer is None else f"output of block {layer}, counted from 0",
        "Latents": f"{crosscoder.n_latents:,} over {crosscoder.n_models} x {crosscoder.d_model:,} dimensions",
        **facts,
    }
    table = "\n".join(f"| {name} | {_cell(value)} |" for name, value in rows.items())
    return f"""---
library_name: {library}
tags: [crosscoder, model-diffing]
---

# A crosscoder: one dictionary over the activations of two models

| | |
|---|---|
{table}

Read it with {HOW_TO_READ[format]}. Or with crossdiff: `crosscoder=<this folder or repository>`.

## Licence

None was chosen here. The weights were learnt from activations of the two models on the documents above, so
the licences of the models and of the documents may say what may be done with them. Read those, choose a
licence, and write it as `license:` into the head of this file before you publish it.
"""


def _cell(value: str) -> str:
    """A text escaped for a cell of a Markdown table."""
    return " ".join(value.replace("|", "\\|").replace("<", "&lt;").split())
