"""One self-contained HTML page: figures, tables, the latent explorer and provenance, no external request."""

from __future__ import annotations

import base64
import gzip
import hashlib
import json
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from crossdiff.report import explorer, latent_columns, sections, style
from crossdiff.report.explorer import neighbours
from crossdiff.report.formatting import finite
from crossdiff.report.sources import Sources

HERE = Path(__file__).resolve().parent
PLOTLY = HERE / "static" / "plotly-basic-4.1.1.min.js.gz"
"""`npm pack plotly.js-basic-dist-min@4.1.1`, the plotly package's version of plotly.js; MIT license."""
SCRIPTS = ("text.js", "theme.js", "charts.js", "tables.js", "chunks.js", "reader.js", "explorer.js")

N_EXAMPLES_OF_MEMBERS = 6
"""Documents per latent of a pair's second and further crosscoders."""


def render(sources: Sources, *, title: str, n_examples: int = 20) -> str:
    """The report of `sources` as HTML text."""
    context = sections.page_context(sources)
    drawn = context.pop("figures")
    index: list[dict[str, Any]] = []
    chunks: dict[str, str] = {}
    near = neighbours(sources.pairs)
    known = context.pop("concepts")
    for name in sources.pairs:
        crosscoders = sources.crosscoders(name)
        recurring = known.get(name, {})
        for number, one in enumerate(crosscoders):
            shown = n_examples if number == 0 else min(n_examples, N_EXAMPLES_OF_MEMBERS)
            rows, packed = explorer.pack(one, n_examples=shown, near=near.get(one.name), recurring=recurring)
            index += rows
            chunks |= {f"{one.name}-{latent}": chunk for latent, chunk in packed.items()}
    return fill(
        "report.html.j2",
        drawn,
        **context,
        title=title,
        index=_raw(as_json(index)),
        columns=_raw(as_json(latent_columns.columns(sources.pairs.values()))),
        chunks={key: _raw(chunk) for key, chunk in chunks.items()},
        n_listed=len(index),
    )


def fill(template: str, figures: dict[str, Any], **context: Any) -> str:
    """A page of the shell (`shell.html.j2`) with styles, scripts, `figures` by name and policy."""
    css, script = _static("report.css"), _script()
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            version=version("crossdiff"),
            csp=content_security_policy(css=css, scripts=(script, plotly_source())),
            css=_raw(css),
            script=_raw(script),
            plotly=_raw(packed_plotly()),
            figures={name: _raw(as_json(figure)) for name, figure in figures.items()},
            dark=_raw(as_json(style.DARK)),
        )
    )


def content_security_policy(*, css: str, scripts: tuple[str, ...]) -> str:
    """A policy under which nothing loads or connects, and only our inline scripts and styles run.

    plotly adds empty style elements (hence the hash of an empty text) and style attributes on its SVG.
    """
    allowed = " ".join(_hash_source(script) for script in scripts)
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {allowed}",
            f"style-src-elem {_hash_source(css)} {_hash_source('')}",
            "style-src-attr 'unsafe-inline'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
        )
    )


def as_json(data: Any) -> str:
    """JSON for a script element: without `<`, `>`, `&`, line separators and NaN."""
    if hasattr(data, "to_plotly_json"):
        data = json.loads(data.to_json())
    text = json.dumps(finite(data), ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


@cache
def plotly_source() -> str:
    """plotly.js's basic bundle (scatter and bar), which starts five times faster than the full one."""
    return gzip.decompress(PLOTLY.read_bytes()).decode()


@cache
def packed_plotly() -> str:
    """The bundle in gzip and base64 (0.5 of 1.2 MB); the page unpacks it and runs it under its hash."""
    return base64.b64encode(PLOTLY.read_bytes()).decode()


def _hash_source(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _static(name: str) -> str:
    return (HERE / "static" / name).read_text(encoding="utf-8")


def _script() -> str:
    body = "\n".join(_static(name) for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{body}\n}})();\n'


def _raw(text: str) -> Any:
    from markupsafe import Markup

    return Markup(text)


def _environment() -> Any:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
