"""`action=export export.what=annotations`: answers as JSON lines or CSV, and the ledger behind them."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff.annotation.annotators import LEDGER
from crossdiff.annotation.api.ledger import Ledger
from crossdiff.annotation.rating_sheet import inert
from crossdiff.annotation.settings import AnnotatorSettings, Lexical, OwnAnnotator, Replay, Transformers
from crossdiff.config import Experiment
from crossdiff.io.tables import read_jsonl
from crossdiff.pipeline.plan import plan


def export_annotations(experiments: Sequence[Experiment]) -> int:
    """Write `<title>_<layer>.annotations.*` per run, and `ledger.jsonl` where requests were sent."""
    settings = experiments[0].export
    settings.folder.mkdir(parents=True, exist_ok=True)
    for experiment in experiments:
        step = next(step for step in plan(experiment) if step.stage == "annotate")
        source = step.finished_folder(experiment.store) / "annotations.jsonl"
        name = f"{experiment.title}_{experiment.layer}.annotations.{settings.chosen_format}"
        if settings.chosen_format == "csv":
            _write_csv(source, settings.folder / name)
        else:
            shutil.copyfile(source, settings.folder / name)
        print(f"annotations: {settings.folder / name}", flush=True)
    for path in sorted({path for e in experiments if (path := ledger_path(e.annotator, e.store))}):
        target = settings.folder / "ledger.jsonl"
        n_requests = Ledger(path, read_only=True).export(target)
        print(f"ledger: {target} ({n_requests:,} requests)", flush=True)
    return 0


def ledger_path(annotator: AnnotatorSettings, store: Path) -> Path | None:
    """The ledger that the annotator reads or writes; None where it sends nothing or has sent nothing yet."""
    if isinstance(annotator, Lexical | Transformers | OwnAnnotator):
        return None
    path = annotator.ledger if isinstance(annotator, Replay) else store / LEDGER
    return path if path.is_file() else None


def _write_csv(source: Path, target: Path) -> None:
    """One row per latent; lists and mappings as JSON in their cell, and no text that a spreadsheet runs."""
    import pandas as pd

    rows = [{name: _cell(value) for name, value in row.items()} for row in read_jsonl(source)]
    pd.DataFrame(rows).to_csv(target, index=False)


def _cell(value: Any) -> Any:
    match value:
        case list() | dict():
            return json.dumps(value)
        case str():
            return inert(value)
    return value
