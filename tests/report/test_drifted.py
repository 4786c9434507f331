"""The table of drifted shared latents: its order, labels, hostile text, nothing where nothing is known."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from crossdiff.core.drift import drifted
from crossdiff.report.drifted import N_UNLABELLED, drifted_block
from crossdiff.report.formatting import readable
from crossdiff.report.page import render
from crossdiff.report.sources import PairSource, Sources
from crossdiff.report.summary import pair_summary
from tests.report_artifacts import annotation

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def pair(sources: Sources) -> PairSource:
    return sources.pairs["pt_it"]


def labelled(pair: PairSource, n: int) -> PairSource:
    """The pair as a run with documents of its `n` most drifted latents, the second of which is a control."""
    top = drifted(pair.latents).latents[:n]
    roles = {latent: "control_shared" if place == 1 else "drifted" for place, latent in enumerate(top)}
    examples = pair.examples
    assert examples is not None
    one = examples[examples["latent"] == examples["latent"].iloc[0]]
    own = one.assign(latent=top[0], tokens=[[HOSTILE, *list(tokens)[1:]] for tokens in one["tokens"]])
    rows = [annotation("pt_it", n, role, state="ok", number=1) for n, role in roles.items()]
    rows[0]["keywords"] = [HOSTILE]
    rows[-1] = annotation("pt_it", top[-1], "drifted", state="refused", number=1)
    swapped = annotation("pt_it", top[0], "control_swapped", state="ok", number=2) | {"label": "swapped"}
    listed = [{"latent": latent, "role": role} for latent, role in roles.items()]
    selection = {**pair.selection, "latents": [*pair.selection["latents"], *listed]}
    return replace(
        pair, selection=selection, annotations=[*pair.annotations, *rows, swapped], examples=own, top=None
    )


def cells(block: dict[str, Any], column: str) -> list[str]:
    place = [one.title for one in block["table"].columns].index(column)
    return [row.cells[place].text for row in block["table"].rows]


def test_the_most_drifted_come_first_with_direction_and_factor(pair: PairSource) -> None:
    block = drifted_block(pair)
    assert block is not None
    rows = [[cell.sort for cell in row.cells] for row in block["table"].rows]
    assert len(rows) == N_UNLABELLED
    drifts = [row[1] for row in rows]
    assert drifts == sorted(drifts, key=abs, reverse=True)
    assert cells(block, "Used more by") == ["tuned" if drift > 0 else "base" for drift in drifts]
    assert [row[4] for row in rows] == pytest.approx([math.exp(abs(drift)) for drift in drifts])
    assert block["text"].endswith("Give documents.n_drifted=50 for labels and documents.")
    assert all(row.cells[0].href is None for row in block["table"].rows)


def test_labels_words_and_an_example_line_stand_where_they_were_asked_for(pair: PairSource) -> None:
    block = drifted_block(labelled(pair, 4))
    assert block is not None
    assert len(block["table"].rows) == 4
    assert "swapped" not in cells(block, "Label")
    assert cells(block, "Label")[-1] == "Refused"
    assert cells(block, "Category")[-1] == "–"
    assert cells(block, "Category")[0] == readable(
        annotation("pt_it", 0, "drifted", state="ok", number=1)["category"]
    )
    assert HOSTILE in cells(block, "Keywords")[0]
    assert block["table"].rows[0].cells[-1].pieces
    assert block["table"].rows[0].cells[0].href.startswith("#latent-pt_it-")
    assert "n_drifted" not in block["text"]


def test_the_page_escapes_them_and_counts_none_as_exclusive(sources: Sources, pair: PairSource) -> None:
    grown = labelled(pair, 4)
    page = render(replace(sources, pairs={"pt_it": grown}, comparison=None), title="Toy")
    assert "Shared latents that one model uses more" in page
    assert HOSTILE not in page
    before, after = (pair_summary(one) for one in (pair, grown))
    for name in ("n_exclusive", "n_labelled"):
        assert before[name] == after[name]


def test_a_table_without_betas_has_no_block_and_unknown_drifts_are_counted(pair: PairSource) -> None:
    without = pair.latents.drop(columns=[name for name in pair.latents if name.startswith("beta_")])
    assert drifted_block(replace(pair, latents=without)) is None
    first = drifted(pair.latents).latents[0]
    negative = pair.latents.copy()
    negative.loc[negative["latent"] == first, "beta_activation_base"] = -0.1
    block = drifted_block(replace(pair, latents=negative))
    assert block is not None
    assert "1 more have no drift" in block["text"]
