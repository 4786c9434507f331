"""The results page of a study: the answer first, hostile text escaped, tables as twins, nothing fetched."""

import re

from crossdiff.report import tables
from crossdiff.report.figures.curves import Point, curves, rows
from crossdiff.report.formatting import tile
from crossdiff.report.study_page import Chart, Findings, render

FINDINGS = Findings(
    "3 of 4 <b>keep</b> their sign.",
    notes=("A note.",),
    tiles=(tile("Kept", "3 of 4"),),
    charts=(
        Chart("curve", "A curve", "Caption.", curves({"a": [Point(1, 2.0, 1.0, 3.0), Point(2, float("nan"))]},
              x_title="x", y_title="y"), tables.plain(["x", "y"], [(1, 2.0)], numeric=[0, 1])),
        Chart("list", "A table", "Caption.", table=tables.plain(["x"], [("<script>",)])),
    ),
)  # fmt: skip


def test_the_page_holds_answer_figures_and_tables() -> None:
    page = render(FINDINGS, title="layers", question="Does it hold?")
    assert "3 of 4 &lt;b&gt;keep&lt;/b&gt; their sign." in page
    assert 'data-figure="curve"' in page
    assert "&lt;script&gt;" in page
    assert not re.search(r'(src|href)="https?:', page)


def test_unknown_values_leave_gaps() -> None:
    drawn = curves({"a": [Point(1, float("nan"))]}, x_title="x", y_title="y").to_dict()
    assert drawn["data"][0]["y"] == [None]
    named = rows({"a": [Point("one", 1.0, 0.5, 2.0)], "b": [Point("one", 2.0)]}, x_title="x").to_dict()
    assert named["data"][0]["error_x"]["array"] == [1.0]
    assert named["layout"]["yaxis"]["ticktext"] == ["one"]
