"""The page in a real headless Chromium: speed, hostile text, keys, links, widths, accessibility, print."""

from __future__ import annotations

import os
import re
import shutil
import statistics
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from crossdiff.settings import Runtime
from crossdiff.stages import report
from tests import report_artifacts
from tests.report_artifacts import Size, Store

pytestmark = pytest.mark.browser

CHROMIUM = os.environ.get("CROSSDIFF_CHROMIUM") or shutil.which("chromium") or "/usr/bin/chromium"
AXE = Path(os.environ.get("CROSSDIFF_AXE", ".build/node_modules/axe-core/axe.min.js"))
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
ALL_DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))"
FULL = Size(n_latents=114_688, n_exclusive=202, n_examples=20, n_tokens=128)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    if not Path(CHROMIUM).is_file():
        pytest.skip(f"no Chromium at {CHROMIUM}: apt-get install chromium, or set CROSSDIFF_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield launched
        launched.close()


@contextmanager
def opened(
    browser: Any, path: Path, *, width: int = 1400, scheme: str = "light", anchor: str = ""
) -> Iterator[Any]:
    """The page in an offline context; any console error, page error or request outside the file fails."""
    size = {"width": width, "height": 900}
    context = browser.new_context(
        viewport=size, color_scheme=scheme, offline=True, permissions=["clipboard-write"]
    )
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


def milliseconds_until_usable(browser: Any, path: Path) -> float:
    """From navigation to the first chart and the list, by the page's own clock."""
    with opened(browser, path) as page:
        page.wait_for_selector("#list a", state="attached")
        page.wait_for_selector(".plot .main-svg", state="attached")
        return page.evaluate("performance.now()")


def test_a_full_report_is_small_and_soon_usable(browser: Any, large: Path) -> None:
    assert large.stat().st_size <= 10e6
    assert min(milliseconds_until_usable(browser, large) for _ in range(3)) <= 1500


TIMED_OPEN = """async (links) => {
  const times = [];
  for (const link of links) {
    const from = performance.now();
    link.click();
    const number = link.hash.split("-").at(-1);
    const top = () => document.querySelector("#detail .detail-top")?.textContent ?? "";
    while (!top().includes(`latent ${number} `)) await new Promise(requestAnimationFrame);
    times.push(performance.now() - from);
  }
  return times;
}"""
TIMED_SEARCH = """(word) => {
  const box = document.getElementById("search"), from = performance.now();
  box.value = word;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  document.getElementById("list").offsetHeight;
  return performance.now() - from;
}"""


def test_opening_a_latent_and_searching_are_quick(browser: Any, large: Path) -> None:
    with opened(browser, large) as page:
        page.wait_for_selector(".plot .main-svg", state="attached")
        wait_until_drawn(page)
        page.wait_for_timeout(1000)
        links = page.evaluate_handle("[...document.querySelectorAll('#list a')].slice(0, 15)")
        assert statistics.median(page.evaluate(TIMED_OPEN, links)) <= 50
        times = [
            page.evaluate(TIMED_SEARCH, word) for word in ("refusal", "river", "pt_it 17", "nothing", "")
        ]
        assert statistics.median(times) <= 100


@pytest.mark.slow
def test_a_thousand_latents_still_open(browser: Any, tmp_path: Path) -> None:
    size = Size(n_latents=114_688, n_exclusive=497, n_examples=20, n_tokens=128)
    path = written(report_artifacts.build(tmp_path / "store", size=size), tmp_path / "draft")
    assert path.stat().st_size <= 25e6
    assert min(milliseconds_until_usable(browser, path) for _ in range(3)) <= 3000


def test_all_charts_are_drawn(browser: Any, small: Path) -> None:
    with opened(browser, small) as page:
        page.wait_for_function(
            "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))",
            timeout=60_000,
        )


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
        page.select_option("#filter-state", "ok")
        page.select_option("#sort", "latent")
        numbers = [int(text.split()[-1]) for text in page.locator("#list .where").all_text_contents()]
        assert numbers == [number for number in range(12) if number != 3]


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


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, small: Path, scheme: str) -> None:
    if not AXE.is_file():
        pytest.skip(f"axe-core is not at {AXE}: npm install --prefix .build axe-core, or set CROSSDIFF_AXE")
    context = browser.new_context(
        viewport={"width": 1400, "height": 900}, color_scheme=scheme, bypass_csp=True
    )
    page = context.new_page()
    page.goto(f"file://{small}#latent-pt_it-2")
    page.wait_for_selector("#detail .example")
    wait_until_drawn(page)
    for summary in page.locator("details.twin summary").all():
        summary.click()
    page.add_script_tag(content=AXE.read_text())
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
