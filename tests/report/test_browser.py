"""The page in a real headless Chromium: hostile text, keys, links, widths, accessibility, print.

How fast it is, is measured by `python -m crossdiff.bench report`; here stand sizes and what has to be there.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from crossdiff.report import latent_columns
from crossdiff.report.page import render
from crossdiff.settings import Runtime
from crossdiff.stages import report
from experiments.bench.report import ALL_DRAWN, PATIENCE_MS
from tests import report_artifacts
from tests.report.conftest import sources_of
from tests.report_artifacts import Size, Store

pytestmark = pytest.mark.browser

FULL = Size(n_latents=114_688, n_exclusive=202, n_examples=20, n_tokens=128)


def axe() -> str:
    """The source of axe-core, which the package axe-playwright-python carries."""
    found = find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not installed: pip install axe-playwright-python")
    return Path(found.origin).with_name("axe.min.js").read_text(encoding="utf-8")


@contextmanager
def opened(
    browser: Any, path: Path, *, width: int = 1400, scheme: str = "light", anchor: str = ""
) -> Iterator[Any]:
    """The page in an offline context; any console error, page error or request outside the file fails."""
    size = {"width": width, "height": 900}
    context = browser.new_context(
        viewport=size, color_scheme=scheme, offline=True, permissions=["clipboard-write"]
    )
    context.set_default_timeout(PATIENCE_MS)
    page, wrong = context.new_page(), []

    def said(message: Any) -> None:
        wrong.extend([message.text] if message.type in ("error", "warning") else [])

    def asked(request: Any) -> None:
        wrong.extend([] if request.url.startswith("file:") else [request.url])

    page.on("console", said)
    page.on("request", asked)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.goto(f"file://{path}{anchor}")
    page.wait_for_selector("h1")
    yield page
    assert wrong == []
    context.close()


def wait_until_drawn(page: Any) -> None:
    """Until every chart is there; the page's own policy forbids Playwright's `wait_for_function`."""
    for _ in range(600):
        if page.evaluate(ALL_DRAWN):
            return
        page.wait_for_timeout(200)
    raise AssertionError("a chart was not drawn within two minutes")


def written(store: Store, folder: Path) -> Path:
    folder.mkdir()
    reference, treatment = store.pairs if len(store.pairs) == 2 else (None, None)
    inputs = report.ReportInputs(title="Toy", pairs=store.pairs, reference=reference, treatment=treatment)
    report.run(inputs, store.parents, folder, Runtime(progress=False))
    return folder / "report.html"


@pytest.fixture(scope="session")
def small(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(store, tmp_path_factory.mktemp("small") / "draft")


@pytest.fixture(scope="session")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("large")
    return written(report_artifacts.build(root / "store", pairs=("pt_it",), size=FULL), root / "draft")


def test_a_full_report_is_small_and_opens(browser: Any, large: Path) -> None:
    assert large.stat().st_size <= 10e6
    with opened(browser, large) as page:
        page.wait_for_selector(".plot .main-svg", state="attached")
        assert page.locator("#list a").count() == 205 + 1
        page.locator("#list a").nth(7).click()
        page.wait_for_selector("#detail .example")
        assert page.locator("#detail .example").count() == 20
        page.fill("#search", "mathematics")
        shown, total = page.inner_text("#shown").removesuffix(" latents").split(" of ")
        assert 0 < int(shown) < int(total) == 206


def test_charts_outside_the_window_wait_for_the_first(browser: Any, large: Path) -> None:
    with opened(browser, large) as page:
        page.wait_for_selector(".plot .main-svg", state="attached")
        first = "document.querySelector('.plot').querySelector('.main-svg') !== null"
        assert page.evaluate(first)
        wait_until_drawn(page)


@pytest.mark.slow
def test_a_thousand_latents_still_open(browser: Any, tmp_path: Path) -> None:
    size = Size(n_latents=114_688, n_exclusive=497, n_examples=20, n_tokens=128)
    path = written(report_artifacts.build(tmp_path / "store", size=size), tmp_path / "draft")
    assert path.stat().st_size <= 25e6
    with opened(browser, path) as page:
        page.wait_for_selector(".plot .main-svg", state="attached")
        assert page.locator("#list a").count() == 1000 + 2


def test_all_charts_are_drawn(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        wait_until_drawn(page)


def test_hostile_documents_neither_run_nor_break_the_layout(browser: Any, tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path / "store", pairs=("pt_it",), hostile=True)
    path = written(store, tmp_path / "draft")
    for width in (390, 1400):
        with opened(browser, path, width=width, anchor="#latent-pt_it-1") as page:
            page.wait_for_selector("#detail .example")
            shown = page.inner_text("#detail")
            assert "⟨RLO⟩evil⟨PDF⟩" in shown
            assert "</script>" in shown
            assert "👩‍👩‍👧" in shown
            assert "深層学習の世界" in shown
            assert page.title() == "Toy"
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            assert page.evaluate("document.querySelectorAll('#detail img, #detail script').length") == 0


def test_a_deep_link_opens_its_latent(browser: Any, small: Path) -> None:
    with opened(browser, small, anchor="#latent-pt_simpo-3") as page:
        page.wait_for_selector("#detail .detail-top")
        assert "pt_simpo · latent 3 · tuned-exclusive" in page.inner_text("#detail")
        assert page.get_attribute("#list a[aria-current]", "href") == "#latent-pt_simpo-3"


def test_a_latent_shows_everything_that_is_known_of_it(browser: Any, small: Path) -> None:
    with opened(browser, small, anchor="#latent-pt_it-2") as page:
        page.wait_for_selector("#detail .example")
        text = page.inner_text("#detail")
        for part in (
            "Fires on polite refusals", "Votes", "Confidence", "Detection", "Keywords", "nu error",
            "Density", "Norm, tuned", "Top logits, tuned direction", "Bottom logits, base direction",
            "␣river 0.5", "document doc-2-0", "quantile", "Highest of the whole corpus",
            "not among the annotator's documents",
        ):  # fmt: skip
            assert part in text, part
        assert page.locator("#detail .histogram span").count() == 3


def test_keys_move_search_and_close(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        page.wait_for_selector("#list a")
        page.keyboard.press("j")
        page.wait_for_selector("#list li:nth-child(1) a[aria-current]")
        page.keyboard.press("j")
        page.wait_for_selector("#list li:nth-child(2) a[aria-current]")
        page.keyboard.press("k")
        page.wait_for_selector("#list li:nth-child(1) a[aria-current]")
        page.keyboard.press("/")
        assert page.evaluate("document.activeElement.id") == "search"
        page.keyboard.type("mathematics")
        texts = page.locator("#list .under").all_text_contents()
        assert texts
        assert all("Mathematics" in text for text in texts)
        assert page.inner_text("#shown") == f"{len(texts)} of 32 latents"


def test_filters_and_order_hold_together(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        page.select_option("#filter-pair", "pt_it")
        page.select_option("#filter-role", "exclusive_tuned")
        page.select_option("#filter-kind", "tuned_only")
        page.select_option("#filter-state", "ok")
        page.select_option("#sort", "latent")
        numbers = [int(text.split()[-1]) for text in page.locator("#list .where").all_text_contents()]
        assert numbers == [number for number in range(12) if number != 3]
        # the intruder score, 1 everywhere, lets nobody in
        page.select_option("#filter-score", "0.9")
        numbers = [int(text.split()[-1]) for text in page.locator("#list .where").all_text_contents()]
        assert numbers == [4, 9]


def test_a_new_column_appears_with_an_order(
    browser: Any, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    further = latent_columns.Column("burst", "Burst", "lowest")
    monkeypatch.setattr(latent_columns, "COLUMNS", (*latent_columns.COLUMNS, further))
    found = sources_of(store)
    pairs = {
        name: replace(pair, latents=pair.latents.assign(burst=-pair.latents["latent"].astype(float)))
        for name, pair in found.pairs.items()
    }
    path = tmp_path / "report.html"
    path.write_text(render(replace(found, pairs=pairs), title="Toy"), encoding="utf-8")
    with opened(browser, path, anchor="#latent-pt_it-2") as page:
        page.wait_for_selector("#detail .example")
        assert page.locator("#detail .facts div", has_text="Burst").inner_text().split() == ["Burst", "-2"]
        page.select_option("#sort", "burst")
        page.select_option("#filter-pair", "pt_it")
        numbers = [int(text.split()[-1]) for text in page.locator("#list .where").all_text_contents()]
        assert numbers == [*range(14, -1, -1), 22]  # the control stays behind the exclusive ones


def test_controls_stand_apart_and_every_row_says_its_model(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        page.select_option("#sort", "latent")
        tags = page.locator("#list .tag").all_text_contents()
        assert len(tags) == 32
        assert tags[-2:] == ["shared control", "shared control"]
        assert set(tags[:-2]) == {"tuned-exclusive", "base-exclusive"}
        assert page.locator("#list li").all_text_contents()[30].startswith("Controls")


def test_a_latent_copies_as_text(browser: Any, small: Path) -> None:
    with opened(browser, small, anchor="#latent-pt_it-2") as page:
        page.click("text=Copy as text")
        page.wait_for_selector("button:has-text('Copied')")


def test_a_click_on_a_point_opens_its_latent(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        page.locator("[data-figure='nu-pt_it']").scroll_into_view_if_needed()
        page.wait_for_selector("[data-figure='nu-pt_it'] .main-svg")
        page.wait_for_timeout(500)
        box = page.locator("[data-figure='nu-pt_it'] .scatterlayer .points path").first.bounding_box()
        page.mouse.move(box["x"] + 4, box["y"] + 4)
        page.mouse.click(box["x"] + 4, box["y"] + 4)
        page.wait_for_selector("#detail .detail-top")
        assert re.search(r"pt_it · latent \d+ · tuned-exclusive", page.inner_text("#detail"))


def test_tables_sort_by_number(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        page.locator("#changes details.twin summary").first.click()
        page.locator("#changes table.sortable th button", has_text="Treatment").first.click()
        cells = (
            page.locator("#changes table.sortable").first.locator("tbody td:nth-child(5)").all_text_contents()
        )
        counts = [int(text.split()[0]) for text in cells]
        assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("width", [390, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_runs_off_the_side(browser: Any, small: Path, width: int, scheme: str) -> None:
    with opened(browser, small, width=width, scheme=scheme) as page:
        page.wait_for_selector(".plot .main-svg", state="attached")
        page.wait_for_timeout(1500)
        assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.mark.parametrize("width", [390, 1920])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, small: Path, width: int, scheme: str) -> None:
    source, size = axe(), {"width": width, "height": 900}
    context = browser.new_context(viewport=size, color_scheme=scheme, bypass_csp=True)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(f"file://{small}#latent-pt_it-2")
    page.wait_for_selector("#detail .example")
    wait_until_drawn(page)
    page.evaluate("document.querySelectorAll('details.twin').forEach((twin) => { twin.open = true; })")
    page.add_script_tag(content=source)
    found = page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    serious = [
        (entry["id"], [node["html"][:120] for node in entry["nodes"][:3]])
        for entry in found["violations"]
        if entry["impact"] in ("serious", "critical")
    ]
    assert serious == []
    context.close()


def test_it_prints_in_light_colours_without_controls(browser: Any, small: Path) -> None:
    with opened(browser, small, scheme="dark") as page:
        wait_until_drawn(page)
        printed = page.pdf(format="A4")
        assert printed[:4] == b"%PDF"
        page.emulate_media(media="print")
        assert not page.is_visible(".bar")
        assert not page.is_visible("#filters")


def test_empty_reports_open_without_an_error(browser: Any, tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path / "store", pairs=("pt_it",), size=Size(n_exclusive=0))
    with opened(browser, written(store, tmp_path / "draft")) as page:
        assert "There is no exclusive latent to list" in page.inner_text("#latents")
