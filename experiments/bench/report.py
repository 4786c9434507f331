"""The report page in a headless Chromium: size, time to use, opening a latent, search; each beside its limit.

python -m crossdiff.bench report                  205 latents of two pairs, 20 examples of 128 tokens
python -m crossdiff.bench report n_listed=1000    a thousand latents
python -m crossdiff.bench report n_listed=1640 n_members=8    those of eight crosscoders of each pair
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from crossdiff.report.export import browser
from crossdiff.report.page import render
from crossdiff.report.sources import Sources
from crossdiff.settings import Settings
from experiments.bench.report_work import N_BASE, Size, invented, invented_members
from experiments.bench.step import machine

ARGUMENTS = (
    "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LIMITS = {205: {"file_mb": 10.0, "usable_ms": 1500.0}, 1640: {"file_mb": 25.0, "usable_ms": 3000.0}}
"""The largest file and the longest time until chart and list are there, by the number of listed latents."""
EVERY_SIZE = {"open_ms": 50.0, "search_ms": 100.0}
PATIENCE_MS = 180_000
"""How long a busy machine may take to start the browser."""
N_OPENED = 15
WORDS = ("refusal", "mathematics 3", "invented words", "nothing of the kind", "")

OPEN = """async (links) => {
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
SEARCH = """(word) => {
  const box = document.getElementById("search"), from = performance.now();
  box.value = word;
  box.dispatchEvent(new Event("input", { bubbles: true }));
  document.getElementById("list").offsetHeight;
  return performance.now() - from;
}"""
WATCH = """(() => {
  const look = () => {
    const there = document.querySelector("#list a") && document.querySelector(".plot .main-svg");
    if (there) globalThis.usableAt = performance.now();
    else requestAnimationFrame(look);
  };
  requestAnimationFrame(look);
})()"""
"""Runs in the page from its start: the frame that follows the list and the first chart."""
ALL_DRAWN = "[...document.querySelectorAll('.plot')].every((plot) => plot.querySelector('.main-svg'))"


class ReportBench(Settings):
    """Sizes and repetitions; `key=value` on the command line. `n_latents` are those of one crosscoder."""

    n_listed: int = 205
    n_members: int = Field(default=1, ge=1)
    n_latents: int = Field(default=114_688, ge=1)
    n_examples: int = Field(default=20, ge=1)
    n_tokens: int = Field(default=128, ge=1)
    rounds: int = Field(default=5, ge=1)

    @model_validator(mode="after")
    def _enough(self) -> ReportBench:
        least = 2 * self.n_members * (N_BASE + 1)
        if self.n_listed < least:
            raise ValueError(
                f"n_listed={self.n_listed} is less than {least}: one tuned-exclusive and {N_BASE} "
                f"base-exclusive latents in each of 2 x {self.n_members} crosscoders; ask for more"
            )
        return self

    def pairs(self) -> dict[str, list[Size]]:
        """Two pairs whose crosscoders share the listed latents as evenly as can be."""
        n_crosscoders = 2 * self.n_members
        parts = [(self.n_listed + place) // n_crosscoders for place in reversed(range(n_crosscoders))]
        sizes = [Size(self.n_latents, part - N_BASE, self.n_examples, self.n_tokens) for part in parts]
        return {"pt_it": sizes[: self.n_members], "pt_simpo": sizes[self.n_members :]}

    def sources(self, folder: Path) -> Sources:
        """What the page is made from; `folder` takes the decoders where a pair has several crosscoders."""
        if self.n_members > 1:
            return invented_members(self.pairs(), folder)
        return invented({name: sizes[0] for name, sizes in self.pairs().items()})

    def limits(self) -> dict[str, float]:
        """Limits of this size; beyond the largest only opening and searching have one."""
        fitting = [limits for n, limits in LIMITS.items() if self.n_listed <= n]
        return {**(fitting[0] if fitting else {}), **EVERY_SIZE}


def main(overrides: list[str]) -> dict[str, Any]:
    """Figures with limits, all samples, and what was measured where; `holds` only if every limit is kept."""
    bench = ReportBench.model_validate(dict(item.split("=", 1) for item in overrides))
    with tempfile.TemporaryDirectory(prefix="crossdiff-bench-") as folder:
        sources = bench.sources(Path(folder))
        start = time.perf_counter()
        page = render(sources, title="Benchmark", n_examples=bench.n_examples)
        render_s = time.perf_counter() - start
        path = Path(folder) / "report.html"
        path.write_text(page, encoding="utf-8")
        samples, version = _in_the_browser(path, bench.rounds)
    figures = {"file_mb": len(page.encode()) / 1e6}
    figures |= {name: statistics.median(values) for name, values in samples.items()}
    limits = bench.limits()
    return {
        "sizes": bench.model_dump(),
        "figures": {
            name: {"figure": round(value, 3), "limit": limits.get(name)} for name, value in figures.items()
        },
        "holds": all(figures[name] <= limit for name, limit in limits.items()),
        "samples": {name: [round(value, 1) for value in values] for name, values in samples.items()},
        "render_s": round(render_s, 2),
        "chromium": version,
        "machine": machine(),
    }


def _in_the_browser(path: Path, rounds: int) -> tuple[dict[str, list[float]], str]:
    """Milliseconds per quantity; every round opens the page anew in an offline context."""
    samples: dict[str, list[float]] = {"usable_ms": [], "all_drawn_ms": [], "open_ms": [], "search_ms": []}
    with chromium() as launched:
        for _ in range(rounds):
            context = launched.new_context(viewport={"width": 1400, "height": 900}, offline=True)
            page = context.new_page()
            samples["usable_ms"].append(milliseconds_until_usable(page, path))
            samples["all_drawn_ms"].append(milliseconds_until_drawn(page))
            links = page.evaluate_handle(f"[...document.querySelectorAll('#list a')].slice(0, {N_OPENED})")
            samples["open_ms"] += page.evaluate(OPEN, links)
            samples["search_ms"] += [page.evaluate(SEARCH, word) for word in WORDS]
            context.close()
        return samples, launched.version


def milliseconds_until_usable(page: Any, path: Path) -> float:
    """From navigation until the list and the first chart are there, by the page's own clock."""
    page.add_init_script(WATCH)
    page.goto(f"file://{path}", wait_until="commit")
    page.wait_for_selector(".plot .main-svg", state="attached")
    while (usable_at := page.evaluate("globalThis.usableAt ?? null")) is None:
        page.wait_for_timeout(20)
    return usable_at


def milliseconds_until_drawn(page: Any) -> float:
    """Until every chart is there; asked from outside, since the page's policy forbids strings as code."""
    for _ in range(600):
        if page.evaluate(ALL_DRAWN):
            return page.evaluate("performance.now()")
        page.wait_for_timeout(100)
    raise AssertionError("a chart was not drawn within a minute")


@contextmanager
def chromium() -> Iterator[Any]:
    """A headless Chromium: the system's, or the one that CROSSDIFF_CHROMIUM names."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise ValueError("playwright drives the browser; install it: pip install playwright") from None
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(
            executable_path=browser(), args=list(ARGUMENTS), timeout=PATIENCE_MS
        )
        yield launched
        launched.close()
