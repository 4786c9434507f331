from pathlib import Path

import crossdiff
from crossdiff.notebook.marked import MarkedText
from tests.notebook.conftest import results_of


def test_active_tokens_stand_between_marks_and_neighbours_share_one() -> None:
    marked = MarkedText(["The", " cat", " sat", "."], [0.0, 1.0, 0.5, 0.0], peak=1.0)
    assert str(marked) == "The« cat sat»."
    assert str(MarkedText(["a", "b"], [0.0, 2.0], peak=2.0, head="first")) == "first\na«b»"


def test_the_shade_is_by_share_of_the_peak_and_the_code_is_told() -> None:
    page = MarkedText(["a", "b", "c"], [2.0, 1.0, 0.0], peak=2.0)._repr_html_()
    assert page.count("<mark") == 2
    assert "rgba(255,150,40,0.90)" in page
    assert "rgba(255,150,40,0.54)" in page  # 0.18 + 0.72 / 2
    assert 'title="2"' in page


def test_a_hostile_text_is_only_text(tmp_path: Path) -> None:
    run = crossdiff.open_run(results_of(tmp_path, hostile=True))
    page = run.examples("pt_it", run.selected("pt_it")[0])._repr_html_()
    assert "<script" not in page
    assert "<img" not in page
    assert "</style" not in page
    assert "\u202e" not in page
    assert "&lt;/script&gt;" in page
    assert len(page) < 2_000_000
