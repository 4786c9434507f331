from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from pathlib import Path

from crossdiff.report import page as page_module
from crossdiff.report.page import as_json, render
from tests import report_artifacts
from tests.report.conftest import sources_of
from tests.report_artifacts import Size


def test_the_page_asks_for_nothing_outside_itself(page: str) -> None:
    assert not re.findall(r"(?:src|href)=[\"'](?!#)", page)
    assert "default-src 'none'" in html.unescape(page)
    assert "@import" not in page
    assert "url(" not in page.split("</style>", maxsplit=1)[0]


def test_every_script_that_runs_is_named_by_its_hash(page: str) -> None:
    running = re.findall(r"<script>(.*?)</script>", page, flags=re.S)
    assert len(running) == 1
    digest = base64.b64encode(hashlib.sha256(running[0].encode()).digest()).decode()
    policy = html.unescape(re.findall(r'Content-Security-Policy" content="([^"]*)"', page)[0])
    assert f"'sha256-{digest}'" in policy
    assert "unsafe" not in policy.replace("style-src-attr 'unsafe-inline'", "")


def test_plotly_is_inlined_once(page: str) -> None:
    assert page.count(page_module.packed_plotly()) == 1
    assert "plotly.js (basic" in page_module.plotly_source()[:200]


def test_the_bundle_is_the_version_that_the_plotly_package_speaks() -> None:
    from plotly.offline import get_plotlyjs_version

    major = get_plotlyjs_version().split(".")[0]
    assert page_module.PLOTLY.name.startswith(f"plotly-basic-{major}.")


def test_json_inside_a_script_cannot_end_it() -> None:
    text = as_json({"document": "</script><!-- & \u2028", "missing": float("nan")})
    assert "<" not in text
    assert "&" not in text
    assert json.loads(text) == {"document": "</script><!-- & \u2028", "missing": None}


def test_hostile_documents_leave_no_markup(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path, pairs=("pt_it",), hostile=True)
    text = render(sources_of(store), title="<b>bold</b> \u202e title")
    assert not re.search(r"<[^<>]*onerror", text)  # the first screen shows it as text
    assert "<b>bold</b>" not in text
    assert text.count("<script") == text.count("</script>")


def test_every_section_says_so_when_it_has_nothing(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path, size=Size(n_exclusive=0))
    text = render(sources_of(store), title="Empty")
    assert "No comparison is possible" in text
    assert "no latent passed latent scaling" in text


def test_a_page_of_refusals_counts_them(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path, pairs=("pt_it",), state="refused")
    text = render(sources_of(store), title="Refused")
    assert "no exclusive latent was labelled (12 refused)" in text


def test_a_single_document_is_enough(tmp_path: Path) -> None:
    size = Size(n_latents=40, n_exclusive=1, n_examples=1, n_tokens=1)
    store = report_artifacts.build(tmp_path, pairs=("pt_it",), size=size)
    assert "5 latents with the documents" in render(sources_of(store), title="One")
