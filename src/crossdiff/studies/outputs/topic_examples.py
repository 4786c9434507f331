"""Topics of the raised tokens, and the positions that annotators read of each topic.

An example is the text up to a position and, on a line of its own, the tokens that are raised most there. The
codes are those of the raised tokens, so that an annotator judges what the logits say, in its context.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from crossdiff.core.logit_differences import Topics, find_topics
from crossdiff.data.example_table import Displayed, background_table, example_table
from crossdiff.data.tokens import TokenKind
from crossdiff.io.tables import write_json, write_table
from crossdiff.studies.outputs import RAISED, OutputsInputs

if TYPE_CHECKING:
    from crossdiff.studies.outputs.passes import Corpus

N_SHOWN = 10
"""Tokens that stand for a topic."""


@dataclass(frozen=True)
class RaisedTopics:
    """Topics over `columns` (token ids), and the positions that they were found on."""

    topics: Topics
    columns: Int[Tensor, " column"]
    found: dict[str, Tensor]

    def tokens(self, topic: int) -> list[tuple[int, float]]:
        """Token ids of a topic with their weights, the largest first."""
        direction = self.topics.directions[topic]
        weights, places = direction.topk(min(N_SHOWN, len(direction)))
        pairs = zip(self.columns[places].tolist(), weights.tolist(), strict=True)
        return [(token, weight) for token, weight in pairs if weight > 0]


def raised_topics(found: dict[str, Tensor], inputs: OutputsInputs) -> RaisedTopics | None:
    """Topics of the matrix [position, token] of what is raised; None where none is raised often enough."""
    columns = (found["sum.top_documents"] >= inputs.min_documents).nonzero().flatten()
    place = torch.full((len(found["sum.top"]),), -1, dtype=torch.int64)
    place[columns] = torch.arange(len(columns))
    top = place[found["top"].long()]
    row, which = ((top >= 0) & (found["values"] > 0)).nonzero(as_tuple=True)
    if len(row) == 0:
        return None
    matrix = torch.sparse_coo_tensor(
        torch.stack([row, top[row, which]]),
        found["values"][row, which],
        (len(top), len(columns)),
        check_invariants=True,
    ).coalesce()
    n_topics = min(inputs.n_topics, len(columns), len(top))
    return RaisedTopics(find_topics(matrix, n_topics, seed=inputs.seed), columns, found)


def write_examples(
    raised: RaisedTopics | None, corpus: Corpus, inputs: OutputsInputs, draft: Path
) -> list[dict[str, Any]]:
    """Write what the stage `annotate` reads; returns number, size and tokens of every topic."""
    shown, rows, topics = Displayed(corpus.token_set), [], []
    for topic in range(0 if raised is None else raised.topics.codes.shape[1]):
        assert raised is not None
        examples = list(_examples(raised, topic, corpus, inputs, shown))
        if not examples:
            continue
        rows += examples
        tokens = raised.tokens(topic)
        names = shown.token_set.token_strings([token for token, _ in tokens])
        n_documents = len(_peaks(raised, topic, corpus, limit=None))
        weights = [round(weight, 4) for _, weight in tokens]
        topics.append({"topic": topic, "tokens": names, "weights": weights, "n_documents": n_documents})
    write_table(example_table(rows), draft / "examples.parquet", version=1, kind="examples")
    background = background_table(
        cast(Any, shown), shown, n_documents=inputs.n_background, window=inputs.window
    )  # of the activations it asks for their token set alone, which `shown` has
    write_table(background, draft / "background.parquet", version=1, kind="background")
    selected = [{"latent": entry["topic"], "role": RAISED} for entry in topics]
    write_json({"version": 1, "latents": selected}, draft / "selection.json")
    return topics


def _peaks(raised: RaisedTopics, topic: int, corpus: Corpus, *, limit: int | None) -> list[int]:
    """The position of largest code of every document that has the topic, the largest first."""
    codes = raised.topics.codes[:, topic]
    order = codes.argsort(descending=True, stable=True)
    order = order[codes[order] > _LEAST * codes.max().clamp(min=1e-9)]
    documents = corpus.token_set.document_of(raised.found["row"][order]).tolist()
    first: dict[int, int] = {}
    for position, document in zip(order.tolist(), documents, strict=True):
        first.setdefault(document, position)
        if limit is not None and len(first) == limit:
            break
    return list(first.values())


_LEAST = 0.1
"""Share of a topic's largest code from which on a document has the topic."""


def _examples(
    raised: RaisedTopics, topic: int, corpus: Corpus, inputs: OutputsInputs, shown: Displayed
) -> Iterator[dict[str, Any]]:
    token_set, found = corpus.token_set, raised.found
    weight = torch.zeros(corpus.n_vocabulary)
    weight[raised.columns] = raised.topics.directions[topic]
    for rank, position in enumerate(_peaks(raised, topic, corpus, limit=inputs.n_examples)):
        row = int(found["row"][position])
        document = int(token_set.document_of(torch.tensor([row])))
        first = int(token_set.offsets[document])
        window = range(max(first, row + 1 - inputs.window), row + 1)
        is_raised = found["values"][position] > 0
        ids, values = found["top"][position][is_raised].long(), found["values"][position][is_raised]
        context = [*shown.tokens(window), "\n"]
        codes = np.concatenate([np.zeros(len(context)), (values * weight[ids]).numpy()]).astype(np.float32)
        kinds = [*shown.kinds(window).tolist(), *[int(TokenKind.TEXT)] * (1 + len(ids))]
        yield {
            "latent": topic,
            "subset": "explain",
            "source": "top",
            "quantile": -1,
            "rank": rank,
            "document_id": token_set.document_ids[document],
            "document": document,
            "start": window.start - first,
            "peak": int(codes.argmax()),
            "peak_code": float(codes.max()),
            "tokens": [*context, *_apart(token_set.token_strings(ids))],
            "codes": codes,
            "kinds": np.array(kinds, dtype=np.uint8),
        }


def _apart(tokens: list[str]) -> list[str]:
    """Each begins with a space, so that parts of words do not run together."""
    return [token if token[:1].isspace() else f" {token}" for token in tokens]
