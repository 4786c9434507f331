"""Exclusive latents for Neuronpedia's importer: features, activations and explanations as JSON lines.

Layout and field names are those of hijohnnylin/neuronpedia at commit ebb8426 (20 August 2026):
`utils/neuronpedia-utils` (db_models, convert-saedashboard-to-neuronpedia-export.py) writes and
`apps/webapp/app/api/admin/import` reads `<model>/<source>/{release,model,sourceset,source}.jsonl` and
`{features,activations,explanations}/batch-<n>.jsonl.gz`. Fields that crossdiff does not measure are empty.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import rows_of, write_text
from crossdiff.report.formatting import finite
from crossdiff.report.sources import PairSource

if TYPE_CHECKING:
    import pandas as pd

READ_VERSION = "hijohnnylin/neuronpedia ebb8426 (2026-08-20)"
CREATOR = "clkht01d40000jv08hvalcvly"
"""The user of a fresh Neuronpedia database (DEFAULT_CREATOR_ID), to be replaced by yours."""
WHEN = "1970-01-01T00:00:00"
"""Replaces the time of writing, so that equal latents give equal bytes."""
BATCH = 128
"""Features per file."""


@dataclass(frozen=True)
class Place:
    """Place of the latents on Neuronpedia: the tuned model, and a source of it."""

    model: str
    layer: int
    pair: str

    @property
    def set_name(self) -> str:
        """Source set: letters, digits and dashes."""
        return re.sub(r"[^a-z0-9]+", "-", f"crossdiff-{self.pair}".lower()).strip("-")

    @property
    def source(self) -> str:
        """`<layer>-<set>`, Neuronpedia's name of a layer."""
        return f"{self.layer}-{self.set_name}"

    def of(self, latent: int) -> dict[str, Any]:
        """The fields that name a feature."""
        return {"modelId": self.model, "layer": self.source, "index": str(latent)}


def write_neuronpedia(
    pair: PairSource, vectors: Mapping[int, Sequence[float]], place: Place, folder: Path
) -> tuple[Path, int]:
    """Write the source's folder; returns it and the number of latents.

    `vectors` are the tuned model's decoder directions of the exclusive latents, in raw activation units:
    what a code of 1 adds to the residual stream.
    """
    target = folder / place.model / place.source
    entries = [e for e in pair.selection.get("latents", []) if str(e["role"]).startswith("exclusive")]
    shown = {int(e["latent"]): list(_documents(pair, int(e["latent"]))) for e in entries}
    features = [_feature(pair, e, vectors, shown[int(e["latent"])], place) for e in entries]
    activations = [
        _activation(row, latent, place)
        for latent, rows in shown.items()
        for row in rows
    ]  # fmt: skip
    explanations = list(_explanations(pair, set(shown), place))
    target.mkdir(parents=True, exist_ok=True)
    for name, line in _about(pair, place).items():
        write_text(_lines([line]), target / f"{name}.jsonl")
    _write_batches(features, target / "features", size=BATCH)
    _write_batches(activations, target / "activations", size=BATCH * 64)
    _write_batches(explanations, target / "explanations", size=BATCH * 64)
    return target, len(features)


def _documents(pair: PairSource, latent: int) -> Iterator[dict[str, Any]]:
    """The latent's windows, the highest of the corpus first, each document once."""
    seen: set[str] = set()
    for table in (pair.top, pair.examples):
        if table is None:
            continue
        rows: pd.DataFrame = table[table["latent"] == latent]  # type: ignore[assignment]
        for row in rows.sort_values("peak_code", ascending=False, kind="stable").to_dict("records"):
            if row["document_id"] not in seen:
                seen.add(str(row["document_id"]))
                yield {str(name): value for name, value in row.items()}


def _feature(
    pair: PairSource,
    entry: Mapping[str, Any],
    vectors: Mapping[int, Sequence[float]],
    documents: Sequence[Mapping[str, Any]],
    place: Place,
) -> dict[str, Any]:
    latent = int(entry["latent"])
    (row,) = rows_of(pair.latents[pair.latents["latent"] == latent])  # type: ignore[arg-type]
    logits = (entry.get("logits") or {}).get("tuned") or {}
    histogram = entry.get("histogram") or {}
    largest = max((float(document["peak_code"]) for document in documents), default=0.0)
    ends = {
        f"{name}_{part}": [_stored(token[at]) if at == 0 else token[at] for token in logits.get(end, ())]
        for name, end in (("pos", "top"), ("neg", "bottom"))
        for at, part in enumerate(("str", "values"))
    }
    return {
        **place.of(latent),
        "sourceSetName": place.set_name,
        "creatorId": CREATOR,
        "createdAt": WHEN,
        "maxActApprox": largest,
        "hasVector": True,
        "vector": [float(value) for value in vectors[latent]],
        "vectorLabel": f"{place.pair}, {str(entry['role']).replace('_', ' to ')}",
        "vectorDefaultSteerStrength": largest,
        "hookName": f"blocks.{place.layer}.hook_resid_post",
        **ends,
        "frac_nonzero": float(row.density),
        "freq_hist_data_bar_heights": list(histogram.get("counts", ())),
        "freq_hist_data_bar_values": list(histogram.get("edges", ()))[:-1],
    }


def _activation(row: Mapping[str, Any], latent: int, place: Place) -> dict[str, Any]:
    values = [float(value) for value in row["codes"]]
    peak = max(range(len(values)), key=values.__getitem__)
    name = f"{place.source} {latent} {row['document_id']} {row['start']}"
    return {
        "id": f"c{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:24]}",
        "tokens": [_stored(token) for token in row["tokens"]],
        **place.of(latent),
        "maxValue": values[peak],
        "maxValueTokenIndex": peak,
        "minValue": min(values),
        "values": values,
        "creatorId": CREATOR,
        "createdAt": WHEN,
        "dataIndex": _stored(row["document_id"]),
        "qualifyingTokenIndex": int(row["peak"]),
    }


def _explanations(pair: PairSource, latents: set[int], place: Place) -> Iterator[dict[str, Any]]:
    """The annotator's description, label or category, of labelled latents."""
    for row in pair.annotations:
        latent, text = int(row["latent"]), row.get("description") or row.get("label") or row.get("category")
        if latent in latents and text and str(row["role"]).startswith("exclusive"):
            name = f"explanation {place.source} {latent}"
            yield {
                "id": f"c{hashlib.sha256(name.encode()).hexdigest()[:24]}",
                **place.of(latent),
                "description": _stored(text),
                "authorId": CREATOR,
                "notes": f"crossdiff: {row.get('annotator')}, category {row.get('category')}",
                "createdAt": WHEN,
            }


def _about(pair: PairSource, place: Place) -> dict[str, dict[str, Any]]:
    """Records of release, model, source set and source; the importer keeps existing ones."""
    named = {"creatorId": CREATOR, "createdAt": WHEN}
    text = f"latents of {pair.name} that belong to one model only and passed {pair.passed} (crossdiff)"
    return {
        "release": {
            "name": place.set_name, "description": text, "descriptionShort": text, "urls": [],
            "creatorNameShort": "crossdiff", "creatorName": "crossdiff", **named,
        },
        "model": {
            "id": place.model, "instruct": False, "displayNameShort": place.model,
            "displayName": place.model, "layers": 0, "neuronsPerLayer": 0, "owner": "",
            "updatedAt": WHEN, **named,
        },
        "sourceset": {
            "modelId": place.model, "name": place.set_name, "creatorName": "crossdiff",
            "releaseName": place.set_name, "description": text, "type": "", "urls": [],
            "visibility": "PRIVATE", **named,
        },
        "source": {
            "modelId": place.model, "setName": place.set_name, "id": place.source,
            "visibility": "PRIVATE", "hasDashboards": True, "inferenceEnabled": False, **named,
        },
    }  # fmt: skip


def _write_batches(rows: Sequence[Mapping[str, Any]], folder: Path, *, size: int) -> None:
    """Write `batch-<n>.jsonl.gz`, without the time of writing."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("batch-*.jsonl.gz"):
        old.unlink()
    for number, start in enumerate(range(0, len(rows), size)):
        text = _lines(rows[start : start + size])
        path = folder / f"batch-{number}.jsonl.gz"
        path.write_bytes(gzip.compress(text.encode(), compresslevel=5, mtime=0))


def _lines(rows: Sequence[Mapping[str, Any]]) -> str:
    """JSON lines in ASCII; a missing number is null."""
    return "".join(f"{json.dumps(finite(dict(row)), allow_nan=False)}\n" for row in rows)


def _stored(text: Any) -> str:
    """A text for Postgres: without NUL and halves of surrogate pairs."""
    return str(text).replace("\0", " ").encode("utf-8", "replace").decode()
