"""Stage isolation (toy only): does a latent separate the triggered chats from all others?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from pydantic import Field

from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import read_json, read_table, write_json
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import NDArray

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.data.paired_activations import PairedActivations
    from crossdiff.data.tokens import TokenSet

VERSION = 1


class IsolationInputs(Settings):
    """Parents are the organism, the tokens, both harvests, train and scale; `draws` are those of the null."""

    layer: int = Field(ge=0)
    mask: MaskSettings = MaskSettings()
    draws: int = Field(default=500, ge=20)
    seed: int = 0
    batch_size: int = Field(default=4096, ge=1)

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset({"batch_size"})


def run(
    inputs: IsolationInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write `isolation.json`: the best latent of all, and the best of those called tuned-only (of a diff_sae:
    whose effect goes up), each chosen on half of the chats and scored on the other half."""
    from crossdiff.stages.activations import open_activations, open_crosscoder

    activations = open_activations(parents, inputs.layer, inputs.mask, device=runtime.device)
    crosscoder = open_crosscoder(parents, activations).to(runtime.device).requires_grad_(requires_grad=False)
    table = read_table(parents["scale"] / "latents.parquet", kind="latents")
    documents, peaks = answer_peaks(crosscoder, activations, batch_size=inputs.batch_size)
    names = set(read_json(parents["organism"] / "triggered.json")["documents"])
    ids = activations.token_set.document_ids
    triggered = np.array([ids[document] in names for document in documents], dtype=bool)
    groups = {"any": np.arange(len(table)), "called": called(table)}
    best = {name: best_of(peaks, triggered, latents, inputs) for name, latents in groups.items()}
    record = {
        "version": 1,
        "n_documents": len(documents),
        "n_triggered": int(triggered.sum()),
        "calls": "sign" not in table,
        **{name: None if one is None else one | whose(table, one["latent"]) for name, one in best.items()},
    }
    write_json(record, draft / "isolation.json")
    return {name: None if one is None else one["held_out"] for name, one in best.items()}


def called(table: pd.DataFrame) -> NDArray[np.int64]:
    """Latents that the method says are new in the tuned model."""
    column, value = ("sign", "up") if "sign" in table else ("exclusive_to", "tuned")
    return (table[column] == value).to_numpy().nonzero()[0]


def whose(table: pd.DataFrame, latent: int) -> dict[str, Any]:
    """What the method says of one latent."""
    sign = {"sign": table["sign"].iloc[latent]} if "sign" in table else {}
    return {"is_called": bool(latent in called(table)), "call": str(table["call"].iloc[latent]), **sign}


def best_of(
    peaks: NDArray[np.floating],
    triggered: NDArray[np.bool_],
    latents: NDArray[np.int64],
    inputs: IsolationInputs,
) -> dict[str, Any] | None:
    """The best of these latents with its null; None without latents.

    `null_95` is the 95th percentile of the null's held-out scores, `p_value` the share of the null (the
    observed score among it) that is no lower.
    """
    from crossdiff.statistics.isolation import halves, isolation, isolation_null

    if not len(latents):
        return None
    held_out, of_these = halves(triggered, seed=inputs.seed), peaks[:, latents]
    found = isolation(of_these, triggered, held_out)
    null = isolation_null(of_these, triggered, held_out, draws=inputs.draws, seed=inputs.seed)
    return {
        "latent": int(latents[found.latent]),
        "chosen": found.chosen,
        "held_out": found.held_out,
        "f1": found.f1,
        "false_positive_rate": found.false_positive_rate,
        "null_95": float(np.percentile(null, 95)),
        "p_value": float((1 + (null >= found.held_out).sum()) / (1 + len(null))),
        "n_latents": len(latents),
    }


def answer_peaks(
    crosscoder: Crosscoder, activations: PairedActivations, *, batch_size: int
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The chats, and the largest code of every latent in the answer of each; chats without a kept token of an
    answer are left out."""
    import torch

    from crossdiff.core.documented_latents import document_peaks

    rows = activations.rows("all")
    rows = rows[torch.from_numpy(in_answers(activations.token_set))[rows]]
    batches = activations.batches_of(rows, batch_size=batch_size)
    codes = (
        (crosscoder.encode(b.activations_on(crosscoder.decoder.device).x).cpu(), b.document, b.row)
        for b in batches
        if b.document is not None
    )
    found = list(document_peaks(codes))
    documents = np.concatenate([part.document.numpy() for part in found])
    return documents, np.concatenate([part.peak.numpy() for part in found])


def in_answers(tokens: TokenSet) -> NDArray[np.bool_]:
    """Whether each token is text of a chat's second turn: the question holds the trigger's phrase, and a
    latent of the phrase is no latent of the behaviour."""
    from crossdiff.data.tokens import TokenKind
    from crossdiff.organisms.documents import CHAT

    text = tokens.kind.numpy() == TokenKind.TEXT
    offsets = tokens.offsets.numpy()
    begins = text & ~np.concatenate([[False], text[:-1]])
    begins[offsets[:-1][text[offsets[:-1]]]] = True  # a document's text is not the one before's
    turn = np.cumsum(begins)
    before = np.concatenate([[0], turn])[offsets[:-1]]
    is_chat = np.array([name.startswith(CHAT) for name in tokens.document_ids], dtype=bool)
    lengths = np.diff(offsets)
    return text & np.repeat(is_chat, lengths) & (turn - np.repeat(before, lengths) == 2)


STAGE = Stage(
    "isolation",
    version=VERSION,
    run=run,
    reads=("organism", "tokens", "harvest", "train", "scale"),
    writes="(toy only) which latent separates the chats with a trigger from the others",
    resources=needs(gpus=1, cpus=4, memory_gb=16, hours=1),
)
