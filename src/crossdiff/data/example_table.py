"""Tables of the documents stage: examples with codes, background documents, direction logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.documented_latents import codes_of
from crossdiff.core.streaming import mix
from crossdiff.data.examples import Example, document_hashes
from crossdiff.data.paired_activations import PairedActivations
from crossdiff.data.tokens import ALIGNED, TokenSet
from crossdiff.io.artifacts import MANIFEST, read_manifest
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.models.unembedding import load_unembedding

if TYPE_CHECKING:
    import pandas as pd


EXAMPLE_TYPES = {
    "latent": "int32",
    "subset": "object",
    "source": "object",
    "quantile": "int8",
    "rank": "int16",
    "document_id": "object",
    "document": "int32",
    "start": "int32",
    "peak": "int32",
    "peak_code": "float32",
    "tokens": "object",
    "codes": "object",
    "kinds": "object",
}


@dataclass(frozen=True)
class Displayed:
    """Display strings and kinds of a token set's windows."""

    token_set: TokenSet

    def tokens(self, rows: range) -> list[str]:
        """Display strings of consecutive tokens."""
        return self.token_set.text_strings(self.token_set.ids[rows.start : rows.stop])

    def kinds(self, rows: range) -> np.ndarray:
        """Token kinds of consecutive tokens."""
        return self.token_set.kind[rows.start : rows.stop].numpy()


def example_rows(
    crosscoder: Crosscoder,
    activations: PairedActivations,
    latent: int,
    examples: Sequence[Example],
    shown: Displayed,
) -> list[dict[str, Any]]:
    """Rows of the examples table for one latent; `rank` counts within subset and source."""
    ranks: dict[tuple[str, str], int] = {}
    rows = []
    for example, codes in zip(
        examples, _window_codes(crosscoder, activations, latent, examples), strict=True
    ):
        window, group = example.window, (example.subset, example.source)
        ranks[group] = ranks.get(group, -1) + 1
        rows.append(
            {
                "latent": latent,
                "subset": example.subset,
                "source": example.source,
                "quantile": example.quantile,
                "rank": ranks[group],
                "document_id": activations.token_set.document_ids[window.document],
                "document": window.document,
                "start": window.start,
                "peak": window.peak,
                "peak_code": window.peak_code,
                "tokens": shown.tokens(window.rows),
                "codes": codes,
                "kinds": shown.kinds(window.rows),
            }
        )
    return rows


def example_table(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table with `EXAMPLE_TYPES`, even without rows."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=list(EXAMPLE_TYPES))
    return frame.astype({name: kind for name, kind in EXAMPLE_TYPES.items() if kind != "object"})


def background_table(
    activations: PairedActivations, shown: Displayed, *, n_documents: int, window: int
) -> pd.DataFrame:
    """Random documents (lowest hashes of their ids), one window at a random place each."""
    import pandas as pd

    token_set = activations.token_set
    hashes = document_hashes(token_set.document_ids, salt="background")
    rows = []
    for document in sorted(hashes.argsort(stable=True)[:n_documents].tolist()):
        first, end = int(token_set.offsets[document]), int(token_set.offsets[document + 1])
        room = max(end - first - window, 0) + 1
        begin = first + int(mix(hashes[document], salt=1)) % room
        span = range(begin, min(begin + window, end))
        name = token_set.document_ids[document]
        rows.append({"document_id": name, "tokens": shown.tokens(span), "kinds": shown.kinds(span)})
    return pd.DataFrame(rows, columns=["document_id", "tokens", "kinds"])


def _window_codes(
    crosscoder: Crosscoder, activations: PairedActivations, latent: int, examples: Sequence[Example]
) -> list[np.ndarray]:
    """Codes of one latent at every token of every window; 0 where the mask drops the token."""
    if not examples:
        return []
    rows = torch.cat([torch.arange(e.window.rows.start, e.window.rows.stop) for e in examples])
    kept = activations.kept[rows]
    codes: Tensor = torch.zeros(len(rows))
    x = activations.read(rows[kept]).x
    codes[kept] = codes_of(crosscoder, x, torch.tensor([latent]))[:, 0].cpu().float()
    return [part.numpy() for part in codes.split([len(e.window.rows) for e in examples])]


COUNT = 10
MODELS = ("base", "tuned")
Logits = dict[str, dict[str, list[tuple[str, float]]]]
"""Model -> `top` and `bottom` -> (token, effect on its logit)."""


def direction_logits(
    crosscoder: Crosscoder, latents: Sequence[int], parents: Mapping[str, Path], token_set: TokenSet
) -> tuple[list[Logits], list[str]]:
    """Logits per latent, and a notice per model whose unembedding cannot be read."""
    logits: list[Logits] = [{} for _ in latents]
    notices = []
    for index, name in enumerate(MODELS):
        try:
            harvest = parents[f"harvest_{name}"]
            model, path = harvested_model(harvest, parents.get("organism"))
            read = _read_by(harvest, token_set)
            head = load_unembedding(model, path, vocab_size=len(read.tokenizer))
        except (ValueError, SafetensorError) as error:
            notices.append(f"no logits of the {name} model: {error}")
            continue
        own = min(index, crosscoder.n_models - 1)  # the one direction of a diff_sae, read by either head
        directions = crosscoder.decoder[torch.tensor(list(latents), dtype=torch.int64), own].detach().cpu()
        if token_set.place is not None:  # columns beyond a narrower model are zeros
            directions = directions[:, : head.weight.shape[1]]
        for place, (top, bottom) in enumerate(head.ends(directions, count=COUNT)):
            logits[place][name] = {"top": _shown(read, top), "bottom": _shown(read, bottom)}
    return logits, notices


def _read_by(harvest: Path, token_set: TokenSet) -> TokenSet:
    """The token set that a model read: of two families the aligned one has its tokenizer beside it."""
    if token_set.place is None or not read_manifest(harvest)["inputs"].get("aligned", False):
        return token_set
    assert token_set.folder is not None
    return TokenSet.open(token_set.folder / ALIGNED)


def harvested_model(harvest: Path, organism: Path | None) -> tuple[ModelSettings, str]:
    """The model of a harvest, and its folder or hub id."""
    if not (harvest / MANIFEST).is_file():
        raise ValueError(f"{harvest} has no {MANIFEST} that names its model")
    model = ModelSettings.model_validate(read_manifest(harvest)["inputs"]["model"])
    return model, resolve(model, organism)


def _shown(token_set: TokenSet, ends: Sequence[tuple[int, float]]) -> list[tuple[str, float]]:
    ids = torch.tensor([token for token, _ in ends], dtype=torch.int64)
    return list(zip(token_set.token_strings(ids), (value for _, value in ends), strict=True))
