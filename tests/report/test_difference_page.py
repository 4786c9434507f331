"""The page of difference dictionaries: counts by sign, labels by sign, and hostile text as text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from crossdiff.report.difference_page import findings, page
from crossdiff.report.sources import PairSource, Sources
from crossdiff.report.summary import difference_summary

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture
def sources() -> Sources:
    """Latents 0 and 1 go up, 2 goes down, 3 is undecided, 4 is dead."""
    latents = pd.DataFrame(
        {
            "latent": range(5),
            "n_documents": [20, 30, 40, 3, 0],
            "density": [0.1, 0.2, 0.05, 0.01, 0.0],
            "shift_base": [0.0, 0.5, -2.0, -1.0, np.nan],
            "shift_tuned": [2.0, 1.0, 0.0, 1.0, np.nan],
            "effect": [1.0, 0.5, -1.0, 0.0, np.nan],
            "kind": ["other"] * 4 + ["dead"],
            "sign": pd.Series(["up", "up", "down", "undecided", None], dtype=object),
        }
    )
    top = pd.DataFrame(
        {
            "latent": [0, 0, 2],
            "peak_code": [1.0, 5.0, 2.0],
            "peak": [0, 1, 0],
            "tokens": [["low"], ["says ", HOSTILE], ["gone"]],
            "codes": [[1.0], [0.0, 5.0], [2.0]],
        }
    )
    roles = ["effect_up", "effect_up", "effect_down"]
    labels = ["translation", HOSTILE, "mathematics"]
    pair = PairSource(
        name="pt_it",
        latents=latents,
        training={"fve_difference": 0.7, "l0": 3.0},
        diagnostics={"signs": {"up": 2, "down": 1, "undecided": 1}},
        settings={},
        top=top,
        selection={"latents": [{"latent": n, "role": role} for n, role in enumerate(roles)]},
        annotations=[
            {"pair": "pt_it", "latent": n, "role": role, "state": "ok", "category": label}
            for n, (role, label) in enumerate(zip(roles, labels, strict=True))
        ],
        annotated=True,
    )
    return Sources({"pt_it": pair}, None, {}, {}, [])


def test_counts_labels_and_documents_stand_under_their_sign(sources: Sources) -> None:
    found = findings(sources, None)
    assert (
        "of 4 latents of the difference that ever fire, 2 go up, 1 go down and 1 are undecided"
        in found.answer
    )
    charts = {chart.name: chart for chart in found.charts}
    labels = charts["labels-pt_it"].table
    assert labels is not None
    by_name = {row.cells[0].text: [cell.text for cell in row.cells[1:3]] for row in labels.rows}
    assert by_name["Translation"] == ["1", "0"]
    assert by_name["Mathematics"] == ["0", "1"]
    latents = charts["latents-pt_it"].table
    assert latents is not None
    order = [row.cells[0].text for row in latents.rows]
    assert order == ["0", "1", "2"]  # 0.1 * 2, then 0.2 * 0.5 and 0.05 * 2, which are equal
    assert latents.rows[0].cells[-1].text == f"says «{HOSTILE}»"


def test_every_crosscoder_of_a_pair_has_its_counts(sources: Sources) -> None:
    first = sources.pairs["pt_it"]
    second = replace(first, name="pt_it_seed1", latents=first.latents.assign(sign="down"))
    found = findings(replace(sources, members={"pt_it": (first, second)}), None)
    table = found.charts[0].table
    assert table is not None
    counts = [[cell.text for cell in row.cells[:4]] for row in table.rows]
    assert counts == [["pt_it", "2", "1", "1"], ["pt_it_seed1", "0", "5", "0"]]


def test_hostile_text_stays_text(sources: Sources) -> None:
    html = page(sources, None, title="t", artifacts=[])
    assert HOSTILE not in html
    assert "&lt;img src=x" in html


def test_the_summary_makes_no_call(sources: Sources) -> None:
    found = difference_summary(sources.pairs["pt_it"])
    assert found["n_exclusive"] is None
    assert (found["n_up"], found["n_down"], found["n_undecided"]) == (2, 1, 1)
    assert (found["n_labelled_up"], found["n_labelled_down"], found["fve_difference"]) == (2, 1, 0.7)
