"""Stage report: one HTML page, copies of the products, and summary.json."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.io.tables import read_jsonl, write_json, write_jsonl
from crossdiff.settings import Runtime, Settings
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Stage, needs

if TYPE_CHECKING:
    from crossdiff.report.sources import Sources

VERSION = 5


class ReportInputs(Settings):
    """The page's title and pairs; without `reference` there is no comparison."""

    title: str
    pairs: tuple[str, ...]
    reference: str | None = None
    treatment: str | None = None
    n_examples: int = 20
    members: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Shown pair -> names of its crosscoders, where it has several."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"members"})

    @property
    def crosscoders(self) -> tuple[str, ...]:
        """Names of all crosscoders of the shown pairs."""
        return tuple(name for pair in self.pairs for name in self.members.get(pair, (pair,)))


def run(inputs: ReportInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `report.html`, `summary.json` and copies of the products."""
    from crossdiff.report.sources import read_sources

    sources = read_sources(
        parents,
        pairs=inputs.pairs,
        reference=inputs.reference,
        treatment=inputs.treatment,
        members=inputs.members,
    )
    return write(sources, inputs, parents, draft)


def write(sources: Sources, inputs: ReportInputs, parents: Mapping[str, Path], draft: Path) -> dict[str, Any]:
    """`run` from artifacts that are already read."""
    from crossdiff.report import difference_page
    from crossdiff.report.page import render
    from crossdiff.report.summary import summary

    if any("sign" in pair.latents for pair in sources.pairs.values()):
        down = parents["compare"] / "deltas_down.csv" if "compare" in parents else None
        page = difference_page.page(sources, down, title=inputs.title, artifacts=list(parents.items()))
    else:
        page = render(sources, title=inputs.title, n_examples=inputs.n_examples)
    (draft / "report.html").write_text(page, encoding="utf-8")
    setting_stages = [stage.name for stage in protocol.stages() if stage.has_settings]
    write_json(summary(sources, setting_stages=setting_stages), draft / "summary.json")
    scaled = tuple(name for name in inputs.crosscoders if f"scale_{name}" in parents)
    copy_products(scaled, parents, draft)
    listed = [len(pair.selected()) for pair in sources.pairs.values()]
    return {
        "n_pairs": len(inputs.pairs),
        "n_latents_listed": sum(listed),
        "report_mb": round(len(page.encode()) / 1e6, 2),
    }


def copy_products(pairs: tuple[str, ...], parents: Mapping[str, Path], draft: Path) -> None:
    """Copy latent tables, annotations, taxonomy and deltas."""
    for pair in pairs:
        shutil.copyfile(parents[f"scale_{pair}"] / "latents.parquet", draft / f"latents.{pair}.parquet")
    if "annotate" in parents:
        shutil.copyfile(parents["annotate"] / "taxonomy.yaml", draft / "taxonomy.yaml")
        _split_annotations(parents["annotate"] / "annotations.jsonl", pairs, draft)
    if "compare" in parents:
        for path in sorted(parents["compare"].glob("deltas*.csv")):  # a diff_sae has two
            shutil.copyfile(path, draft / path.name)


def _split_annotations(source: Path, pairs: tuple[str, ...], draft: Path) -> None:
    rows = read_jsonl(source)
    for pair in pairs:
        write_jsonl(
            (row for row in rows if row["pair"] == pair), draft / f"annotations.{pair}.jsonl", ascii_only=True
        )


STAGE = Stage(
    "report",
    version=VERSION,
    run=run,
    reads=("organism", "tokens", "train", "scale", "documents", "annotate", "compare"),
    writes="`report.html`, `summary.json`",
    resources=needs(memory_gb=16, hours=1),
    least_seconds=5,
)
