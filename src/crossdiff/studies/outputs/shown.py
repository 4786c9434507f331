"""The tables of the page: figures of every pair, its tokens, documents and topics, changes of categories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossdiff.report import tables
from crossdiff.report.formatting import between, change_text, readable, told
from crossdiff.report.study_page import Chart
from crossdiff.studies.outputs.topic_changes import TopicChanges

if TYPE_CHECKING:
    import pandas as pd

N_ROWS = 30
"""Tokens and documents of a table; the whole lists are in the step's CSV files."""


def figures_chart(records: Mapping[str, Mapping[str, Any]]) -> Chart:
    """How far apart the outputs are, per pair."""
    body = [
        [
            pair, r["n_documents"], r["n_positions"], told(r["kl"], ".4f"),
            between(r["kl_low"], r["kl_high"], ".4f"), told(r["nll_base"], ".3f"),
            told(r["nll_tuned"], ".3f"),
            f"{r['n_likelier']:,} ({between(r['likelier_low'], r['likelier_high'], '.0%')})",
            len(r["topics"]),
            told(r["share_explained"], ".0%"),
        ]
        for pair, r in records.items()
    ]  # fmt: skip
    titles = ["Pair", "Documents", "Positions", "KL", "95 % interval", "NLL base", "NLL tuned"]
    titles += ["Likelier in the tuned model", "Topics", "Share explained"]
    caption = (
        "KL(tuned || base) and negative log-probabilities of the next token, nats; intervals over documents "
        "(bootstrap; of the share, Wilson). Share explained: of the squared raises by all topics together."
    )
    table = tables.plain(titles, body, numeric=[1, 2, 8])
    return Chart("figures", "How far apart the outputs are", caption, table=table)


def changes_chart(changes: TopicChanges) -> Chart:
    """Topics per category of both pairs, planted changes and those of crosscoders where known."""
    body = []
    for place, name in enumerate(changes.names):
        reference, treatment = changes.counts.counts[0, :, place].tolist()
        row: list[Any] = [
            readable(name),
            reference,
            treatment,
            change_text(float(np.expm1(changes.topics[place]))),
        ]
        if changes.planted is not None:
            row.append(change_text(float(changes.planted[place])))
        if changes.crosscoders is not None:
            called = " (called)" if name in changes.called else ""
            row.append(change_text(float(np.expm1(changes.crosscoders[place]))) + called)
        body.append(row)
    titles = ["Category", "Topics, reference", "Topics, treatment", "Change of their share"]
    titles += ["Planted"] * (changes.planted is not None)
    titles += ["Crosscoders"] * (changes.crosscoders is not None)
    caption = (
        "Shares of labelled topics, 1/2 added to every count. The number of topics is chosen: no p-values."
    )
    return Chart(
        "changes", "Categories of the topics", caption, table=tables.plain(titles, body, numeric=[1, 2])
    )


def pair_charts(pair: str, folder: Path, record: Mapping[str, Any], labels: Mapping[int, str]) -> list[Chart]:
    """Tokens, topics and documents of one pair."""
    import pandas as pd

    tokens = pd.read_csv(folder / "tokens.csv", dtype={"token": str}, keep_default_na=False)
    documents = pd.read_csv(
        folder / "documents.csv",
        dtype={"document_id": str, "source": str},
        keep_default_na=False,  # a document may be called NA
        na_values={name: [""] for name in ("nll_base", "nll_tuned", "gain", "kl")},
    )
    raised = tokens.loc[tokens["share_top"] > 0].head(N_ROWS)
    lowered = tokens.loc[tokens["share_bottom"] > 0].sort_values("share_bottom", ascending=False).head(N_ROWS)
    where = f"of the {record['top_k']} most"
    return [
        _tokens_chart(
            f"raised_{pair}", f"{pair}: tokens that the tuned model raises", f"{where} raised", raised
        ),
        _tokens_chart(f"lowered_{pair}", f"{pair}: tokens that it lowers", f"{where} lowered", lowered),
        _topics_chart(pair, record, labels),
        _documents_chart(pair, documents),
    ]


def _tokens_chart(name: str, title: str, share: str, frame: pd.DataFrame) -> Chart:
    column = "share_bottom" if name.startswith("lowered") else "share_top"
    body = [
        [
            repr(token), told(top, ".1%"), told(up, ".0%"), told(positive, ".0%"), told(mean, "+.2f"),
            f"{told(documents, '.0%')} ({between(low, high, '.0%')})",
        ]
        for token, top, up, positive, mean, documents, low, high in zip(
            *(frame[c] for c in ("token", column, "share_raised", "share_positive_logit", "mean_change",
                                 "share_documents", "low", "high")),
            strict=True,
        )
    ]  # fmt: skip
    titles = ["Token", f"Positions where it is {share}", "Log-probability rises", "Logit difference > 0"]
    titles += ["Mean change, nats", "Documents where it is of the most raised"]
    caption = "Shares are of positions; the last, of documents, has Wilson's 95 % interval."
    return Chart(name, title, caption, table=tables.plain(titles, body))


def _topics_chart(pair: str, record: Mapping[str, Any], labels: Mapping[int, str]) -> Chart:
    body = [
        [
            topic["topic"], readable(labels.get(topic["topic"], "unanswered")),
            ", ".join(repr(token.strip() or token) for token in topic["tokens"]), topic["n_documents"],
        ]
        for topic in record["topics"]
    ]  # fmt: skip
    table = tables.plain(["Topic", "Category", "Tokens", "Documents"], body, numeric=[0, 3])
    caption = (
        "Non-negative factors of the raises [position, token]; documents with a tenth of its largest code."
    )
    return Chart(f"topics_{pair}", f"{pair}: topics of the raised tokens", caption, table=table)


def _documents_chart(pair: str, frame: pd.DataFrame) -> Chart:
    ends = [frame.head(N_ROWS // 2), frame.iloc[N_ROWS // 2 :].tail(N_ROWS // 2)]
    columns = ("document_id", "source", "n_tokens", "nll_base", "nll_tuned", "gain")
    body = [list(row) for part in ends for row in zip(*(part[c].tolist() for c in columns), strict=True)]
    titles = ["Document", "Source", "Tokens", "NLL base", "NLL tuned", "Gain"]
    caption = (
        "The documents that the tuned model finds likelier by most, then those by least; nats per token."
    )
    table = tables.plain(titles, body, numeric=range(2, 6))
    return Chart(f"documents_{pair}", f"{pair}: perplexity differences", caption, table=table)
