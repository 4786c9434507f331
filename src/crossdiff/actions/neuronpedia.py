"""`action=export export.what=neuronpedia`: exclusive latents of finished pairs, for Neuronpedia."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from crossdiff.config import Experiment
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.io.tables import write_text
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import PER_CROSSCODER, role
from crossdiff.report.neuronpedia import READ_VERSION, Place, write_neuronpedia
from crossdiff.report.sources import read_annotations, read_pair

CARD = """# Latents of {pairs} for Neuronpedia

Written by crossdiff (`export.what=neuronpedia`) in the layout that {version} reads: put the folder
`<model>/<source>` where your Neuronpedia instance keeps its exports (v1/), and import it there.

Every feature is a crosscoder latent that latent scaling calls exclusive to one model. `vector` is what a code
of 1 adds to the tuned model's residual stream after the block; `values` are codes. `creatorId` is the user
that a fresh Neuronpedia database has: replace it by yours. Source sets are written as PRIVATE.

Before you publish: the activations quote documents of your corpus, and models, data and labels may have
licences that ask for a notice or forbid this.
"""


def _refuse_overwriting(target: Path, experiment: Experiment, written: dict[Path, str]) -> None:
    """ValueError where another grid point has written the same source."""
    if target in written:
        raise ValueError(
            f"{written[target]} and {experiment.results} would both be {target}; export them one by one, "
            "each with an export.folder of its own"
        )
    written[target] = str(experiment.results)


def export_neuronpedia(experiments: Sequence[Experiment]) -> int:
    """Write one source per pair into `export.folder`, and a card; ValueError where a pair is unfinished."""
    folder = experiments[0].export.folder
    names: list[str] = []
    written: dict[Path, str] = {}
    for experiment in experiments:
        steps, store = plan(experiment), experiment.store
        wanted = [step for step in steps if step.stage in (*PER_CROSSCODER, "annotate")]
        parents = {role(step.stage, step.label): step.finished_folder(store) for step in wanted}
        rows = read_annotations(parents)
        for pair in (member for group in experiment.members.values() for member in group):
            source = read_pair(pair.name, parents, rows)
            tuned = str(pair.tuned.adapter or pair.tuned.towards or pair.tuned.path)
            place = Place(re.split("[/:]", tuned.rstrip("/"))[-1], experiment.layer, pair.name)
            _refuse_overwriting(folder / place.model / place.source, experiment, written)
            crosscoder = Crosscoder.load(parents[f"train_{pair.name}"] / "crosscoder")
            raw = (crosscoder.decoder[:, -1] / crosscoder.normaliser.scale[-1]).detach()
            latents = [int(entry["latent"]) for entry in source.selection.get("latents", [])]
            vectors = {latent: raw[latent].tolist() for latent in latents}
            target, n_latents = write_neuronpedia(source, vectors, place, folder)
            names.append(pair.name)
            print(f"neuronpedia: {n_latents} latents in {target}", flush=True)
    write_text(CARD.format(pairs=", ".join(names), version=READ_VERSION), folder / "README.md")
    return 0
