"""Stage documents: documents that fire exclusive latents and controls, and random background."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.data.settings import DocumentsSettings, MaskSettings, Subset
from crossdiff.io.tables import read_json, read_table, write_json, write_table
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.core.documented_latents import Chosen, ExampleReservoirs
    from crossdiff.data.paired_activations import PairedActivations

__all__ = ["VERSION", "DocumentsInputs", "DocumentsSettings", "run"]

VERSION = 3
TABLE_VERSION = 1


class DocumentsInputs(Settings):
    """What determines the examples, besides the parents; `batch_size` (tokens) changes rounding only."""

    pair: str
    layer: int = Field(ge=0)
    mask: MaskSettings = MaskSettings()
    documents: DocumentsSettings = DocumentsSettings()
    seed: int = 0
    batch_size: int = Field(default=4096, ge=1)

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"batch_size"})


def run(
    inputs: DocumentsInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write the tables of examples, top documents and background, and `selection.json`.

    Annotators see `examples.parquet`; `top_documents.parquet` has the corpus' highest peaks by falling code,
    `selection.json` roles, histograms and logits.
    """
    from crossdiff.core.documented_latents import choose_latents
    from crossdiff.data.example_table import direction_logits
    from crossdiff.stages.documents_pass import Asked, pass_over_corpus
    from crossdiff.training.nodes import device_beside_ranks

    settings, both = inputs.documents, partial(open_both, inputs, parents)
    crosscoder, activations = both(device_beside_ranks(runtime))
    table = read_table(parents["scale"] / "latents.parquet", kind="latents")
    counts = settings.model_dump(include={"n_controls", "max_latents", "n_drifted"})
    chosen = choose_latents(table, **counts, seed=inputs.seed)
    found = pass_over_corpus(
        (crosscoder, activations), both, Asked.of(chosen, settings, inputs.batch_size), runtime
    )
    if device_beside_ranks(runtime) != runtime.device:
        crosscoder, activations = both(runtime.device)
    reservoirs, histogram = found.reservoirs, found.histogram
    examples, n_refused = read_examples(crosscoder, activations, chosen, reservoirs, inputs=inputs)
    tops = read_top(crosscoder, activations, chosen, reservoirs, inputs=inputs)
    write_table(tops, draft / "top_documents.parquet", version=TABLE_VERSION, kind="top_documents")
    _write_background(activations, settings, draft)
    write_table(examples, draft / "examples.parquet", version=TABLE_VERSION, kind="examples")
    diagnostics = read_json(parents["scale"] / "diagnostics.json")
    record = selection_record(inputs.pair, chosen, diagnostics, n_near_duplicates=n_refused)
    latents = [entry["latent"] for entry in record["latents"]]
    logits, notices = direction_logits(crosscoder, latents, parents, activations.token_set)
    for place, entry in enumerate(record["latents"]):
        entry |= {"histogram": histogram.of(place), "logits": logits[place]}
    write_json({**record, "notices": notices}, draft / "selection.json")
    return {**record["n_latents"], "n_examples": len(examples), "sentence": record["sentence"]}


def open_both(
    inputs: DocumentsInputs, parents: Mapping[str, Path], device: str
) -> tuple[Crosscoder, PairedActivations]:
    """The crosscoder in float32 on its device, and its activations."""
    import torch

    from crossdiff.core.latent_scaling import in_dtype
    from crossdiff.stages.activations import open_activations, open_crosscoder

    activations = open_activations(parents, inputs.layer, inputs.mask, device=device)
    crosscoder = open_crosscoder(parents, activations).to(device)
    return in_dtype(crosscoder, torch.float32), activations


def _write_background(activations: PairedActivations, settings: DocumentsSettings, draft: Path) -> None:
    """Write random documents, with which annotators compare a latent's documents."""
    from crossdiff.data.example_table import Displayed, background_table

    shown = Displayed(activations.token_set)
    n_documents = settings.n_background if activations.token_set.can_be_shown else 0
    background = background_table(activations, shown, n_documents=n_documents, window=settings.window)
    write_table(background, draft / "background.parquet", version=TABLE_VERSION, kind="background")


def read_examples(
    crosscoder: Crosscoder,
    activations: PairedActivations,
    chosen: Chosen,
    reservoirs: dict[Subset, ExampleReservoirs],
    *,
    inputs: DocumentsInputs,
) -> tuple[pd.DataFrame, int]:
    """The examples table, and how many near-duplicate windows were dropped."""
    from crossdiff.data.example_table import Displayed, example_rows, example_table
    from crossdiff.data.examples import pick_examples

    shown, rows, refused = Displayed(activations.token_set), [], 0
    for place, (latent, _) in enumerate(chosen.latents):
        picked, dropped = pick_examples(
            reservoirs, place, token_set=activations.token_set, settings=inputs.documents
        )
        rows += example_rows(crosscoder, activations, latent, picked, shown)
        refused += dropped
    return example_table(rows), refused


def read_top(
    crosscoder: Crosscoder,
    activations: PairedActivations,
    chosen: Chosen,
    reservoirs: dict[Subset, ExampleReservoirs],
    *,
    inputs: DocumentsInputs,
) -> pd.DataFrame:
    """The corpus' highest documents of every chosen latent; `subset` is explain or score."""
    from crossdiff.data.example_table import Displayed, example_rows, example_table
    from crossdiff.data.examples import top_examples

    shown, rows = Displayed(activations.token_set), []
    for place, (latent, _) in enumerate(chosen.latents):
        top = top_examples(reservoirs, place, token_set=activations.token_set, settings=inputs.documents)
        ranked = enumerate(example_rows(crosscoder, activations, latent, top, shown))
        rows += [row | {"rank": rank} for rank, row in ranked]
    return example_table(rows)


def selection_record(
    pair: str, chosen: Chosen, diagnostics: dict[str, Any], *, n_near_duplicates: int
) -> dict[str, Any]:
    """Content of `selection.json`; `sentence` says why no latent is exclusive, or is None."""
    from crossdiff.core.documented_latents import EFFECT_ROLES, ROLES

    by_sign = "signs" in diagnostics
    roles = [role for _, role in chosen.latents]
    always = EFFECT_ROLES if by_sign else ROLES
    counts = {role: roles.count(role) for role in dict.fromkeys((*always, *roles))}
    record = {
        "version": 1,
        "pair": pair,
        "latents": [{"latent": latent, "role": role} for latent, role in chosen.latents],
        "n_latents": counts,
        "not_taken": chosen.not_taken,
        "near_duplicates_dropped": n_near_duplicates,
    }
    if by_sign:
        return {**record, "sentence": None if chosen.latents else f"No latent of {pair} has a clear sign."}
    rejected = diagnostics["rejected"]
    return {
        **record,
        "rejected": {name: count for name, count in rejected["tuned"].items() if name != "exclusive"},
        "rejected_base": {name: count for name, count in rejected["base"].items() if name != "exclusive"},
        "sentence": None if counts["exclusive_tuned"] else empty_sentence(pair, rejected["tuned"]),
    }


def empty_sentence(pair: str, rejected: Mapping[str, int]) -> str:
    """Why nothing is exclusive to the tuned model."""
    stops = ", ".join(
        f"{name} {count:,}" for name, count in rejected.items() if count and name != "exclusive"
    )
    return f"No latent of {pair} is exclusive to the tuned model; latents stopped by each clause: {stops}."


STAGE = Stage(
    "documents",
    version=VERSION,
    run=run,
    reads=("organism", "tokens", "harvest", "train", "scale"),
    writes="examples of every exclusive latent",
    resources=needs(gpus=1, cpus=8, memory_gb=64, hours=4),
    least_seconds=7,
    has_settings=True,
)
