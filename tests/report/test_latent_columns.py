"""A column that the latent table gains appears on the page."""

from __future__ import annotations

import base64
import json
import zlib
from dataclasses import replace

import pytest

from crossdiff.report import explorer
from crossdiff.report.latent_columns import COLUMNS, Column, columns, shown
from crossdiff.report.sources import Sources


def test_a_new_column_of_the_latent_table_appears_under_its_name(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    grown = replace(pair, latents=pair.latents.assign(half_life=0.25, half_life_low=0.125, words="many"))
    assert columns([pair]) == columns([grown])[:-1]
    assert columns([grown])[-1] == {"name": "half_life", "title": "half life", "first": None}
    _, chunks = explorer.pack(grown, n_examples=1)
    figures = json.loads(zlib.decompress(base64.b64decode(chunks["0"])))["figures"]
    assert (figures["half_life"], figures["half_life_low"]) == (0.25, 0.125)


def test_a_line_here_gives_a_title_and_an_order(monkeypatch: pytest.MonkeyPatch) -> None:
    further = Column("burst", "Burst", "lowest")
    monkeypatch.setattr("crossdiff.report.latent_columns.COLUMNS", (*COLUMNS, further))
    assert shown(["latent", "burst", "beta_error_base", "nu_error_baseprobe", "density"]) == [
        Column("density", "Density", "highest"),
        further,
    ]
