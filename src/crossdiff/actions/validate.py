"""`action=validate`, the human check: write a blind rating sheet, read the ratings, compute agreement."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from crossdiff.actions.render import rendered, report_parts
from crossdiff.annotation import rating_sheet
from crossdiff.annotation.results import ANSWERED
from crossdiff.config import Experiment
from crossdiff.io.tables import read_json, read_jsonl, write_json
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import Step
from crossdiff.report.human_check import AGREEMENT, FOLDER, agreement_lines
from crossdiff.stages.annotate import read_candidates
from crossdiff.stages.compared_pairs import ROLE
from crossdiff.statistics.agreement import human_check
from crossdiff.taxonomy.scheme import Taxonomy, load_taxonomy

KEY = "key.json"
VERSION = 1


def perform(experiments: Sequence[Experiment]) -> int:
    """Export or import the sheet of one experiment; returns the exit code."""
    if len(experiments) > 1:
        raise ValueError(f"action=validate takes one run, this command has {len(experiments)}; leave -m out")
    (experiment,) = experiments
    steps = plan(experiment)
    annotate = next(step for step in steps if step.stage == "annotate")
    folder = annotate.finished_folder(experiment.store)
    taxonomy = load_taxonomy(folder / "taxonomy.yaml")
    if experiment.validate_.mode == "export":
        return _export(experiment, steps, annotate, taxonomy)
    check = _import(experiment, annotate, taxonomy)
    print("\n".join(agreement_lines(check)))
    print(f"report: {rendered(experiment, report_parts(experiment))}", flush=True)
    return 0


def _export(experiment: Experiment, steps: Sequence[Step], annotate: Step, taxonomy: Taxonomy) -> int:
    settings = experiment.validate_
    latents = _labelled(experiment, steps, annotate)
    items = rating_sheet.sample(latents, n=settings.n, unit=settings.unit, seed=experiment.seed)
    if not items:
        raise ValueError(
            "no exclusive latent of this run has a category, so there is nothing to rate; see the report for "
            "what the selection rejected"
        )
    folder = experiment.results / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    rating_sheet.write_csv(items, folder / "sheet.csv")
    titles = {group.name: group.title for group in taxonomy.classes}
    classes = {name: titles[parent] for name, parent in taxonomy.parents.items()}
    rating_sheet.write_html(items, taxonomy.categories, classes, folder / "sheet.html")
    answers = {
        item.name: {"pair": item.pair, "latent": item.latent, "category": item.category} for item in items
    }
    key = {"version": VERSION, "annotate": annotate.key, "taxonomy": taxonomy.hash, "unit": settings.unit}
    write_json({**key, "items": answers}, folder / KEY)
    if len(items) < settings.n:
        print(f"only {len(items)} {settings.unit}s could be drawn of validate.n={settings.n}")
    print(f"sheet: {folder / 'sheet.html'}\nsheet: {folder / 'sheet.csv'}")
    print(f"{len(items)} items; {folder / KEY} holds the annotator's answers: do not show it to raters")
    return 0


def _labelled(experiment: Experiment, steps: Sequence[Step], annotate: Step) -> list[rating_sheet.Labelled]:
    """The answered exclusive latents of all pairs, with the examples that the annotator was shown."""
    rows = read_jsonl(annotate.folder(experiment.store) / "annotations.jsonl")
    answers = {
        (row["pair"], row["latent"]): row["category"]
        for row in rows
        if row["role"] == ROLE and row["state"] in ANSWERED
    }
    labelled = []
    for step in steps:
        if step.stage == "documents":
            for candidate in read_candidates(step.finished_folder(experiment.store), step.label):
                category = answers.get((candidate.pair, candidate.latent))
                if category is not None and candidate.role == ROLE:
                    labelled.append(
                        rating_sheet.Labelled(candidate.pair, candidate.latent, category, candidate.explain)
                    )
    return labelled


def _import(experiment: Experiment, annotate: Step, taxonomy: Taxonomy) -> dict[str, Any]:
    """Compute agreement from the filled sheets and write agreement.json."""
    folder = experiment.results / FOLDER
    if not (folder / KEY).is_file():
        raise ValueError(f"{folder} has no exported sheet; run action=validate validate.mode=export first")
    key = read_json(folder / KEY)
    if (key["annotate"], key["taxonomy"]) != (annotate.key, taxonomy.hash):
        raise ValueError(
            f"the sheet in {folder} is of annotations {key['annotate']} (taxonomy {key['taxonomy']}), this "
            f"run has {annotate.key} (taxonomy {taxonomy.hash}): the taxonomy or the annotator has changed "
            "since the export; export a new sheet"
        )
    files = experiment.validate_.files
    if not files:
        raise ValueError("validate.mode=import needs validate.file=<filled sheet>, one file per person")
    names = [category.name for category in taxonomy.categories]
    raters = {
        _name(path, files): rating_sheet.read_ratings(path, list(key["items"]), names) for path in files
    }
    labels = {item: answer["category"] for item, answer in key["items"].items()}
    check = human_check(raters, labels, taxonomy, seed=experiment.seed)
    check |= {"unit": key["unit"], "annotate": annotate.key}
    write_json(check, folder / AGREEMENT)
    return check


def _name(path: Path, files: Sequence[Path]) -> str:
    """The rater's name: that of the file, with its position where two files have one name."""
    namesakes = [other for other in files if other.stem == path.stem]
    return path.stem if len(namesakes) == 1 else f"{path.stem} {namesakes.index(path) + 1}"
