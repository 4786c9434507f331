from __future__ import annotations

import math

from crossdiff.report import tables
from crossdiff.report.sources import Sources


def test_the_twin_of_the_chart_has_counts_interval_and_sign(sources: Sources) -> None:
    assert sources.comparison is not None
    rows = sources.comparison.rows()
    table = tables.deltas(rows, planted={"mathematics": 0.5})
    assert len(table.rows) == len(rows)
    titles = [column.title for column in table.columns]
    assert titles[-1] == "Planted"
    by_name = {row.cells[0].text: row for row in table.rows}
    assert by_name["Mathematics"].cells[-1].text == "+50.0 %"
    assert by_name["Data analysis"].cells[-1].text == "–"
    assert {row.cells[3].text for row in table.rows} <= {
        "more",
        "less",
        "interval holds 0",
        "more, but p > 0.05",
        "less, but p > 0.05",
    }
    assert by_name["Technical"].kind == "class"


def test_cells_sort_by_number_and_missing_ones_have_none() -> None:
    table = tables.plain(["What", "Value"], [("a", 1234.0), ("b", math.nan), ("c", None)], numeric=[1])
    assert [row.cells[1].sort for row in table.rows] == [1234.0, None, None]
    assert [row.cells[1].text for row in table.rows] == ["1,234", "–", "–"]


def test_exclusive_latents_lead_to_their_page(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    table = tables.exclusive("pt_it", pair.exclusive("tuned"), ["nu_error"])
    assert table.rows[3].cells[0].href == "#latent-pt_it-3"
