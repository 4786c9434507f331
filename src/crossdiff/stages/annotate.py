"""Stage annotate: the documents of one or two pairs' latents -> one blind, shuffled run -> annotations."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.annotation.results import ANSWERED, Annotation, Asserted, asserted
from crossdiff.annotation.settings import N_SWAPPED, AnnotatorSettings
from crossdiff.io.progress import track
from crossdiff.io.tables import read_json, read_table, write_json, write_jsonl
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.taxonomy.scheme import OTHER, InducedTaxonomy, Taxonomy, TaxonomySettings, parse_taxonomy

if TYPE_CHECKING:
    from crossdiff.annotation.annotators import AnnotationRun
    from crossdiff.annotation.subjects import Candidate, Document, Subject

VERSION = 5
EXCLUSIVE = ("exclusive_tuned", "exclusive_base", "effect_up", "effect_down")  # the latter two of a diff_sae
OTHER_LIMIT = 0.10
"""Share of `other` above which a warning says that the taxonomy does not fit."""


class AnnotateInputs(Settings):
    """The latents of all `pairs` are shuffled into one run; the annotator does not see the pair."""

    annotator: AnnotatorSettings
    taxonomy: TaxonomySettings
    pairs: tuple[str, ...]
    seed: int


def run(inputs: AnnotateInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Annotate every selected latent; write annotations, variants, taxonomy and the summary of states."""
    folders = {pair: parents[f"documents_{pair}"] for pair in inputs.pairs}
    blind, annotation_run = open_run(folders, inputs.annotator, inputs.seed, runtime)
    with closing(annotation_run):
        return _annotate(inputs, blind, annotation_run, draft)


def _annotate(
    inputs: AnnotateInputs,
    blind: Sequence[tuple[Subject, Candidate]],
    annotation_run: AnnotationRun,
    draft: Path,
) -> dict[str, Any]:
    taxonomy = _frozen(inputs, annotation_run)
    annotations = _annotations(annotation_run, taxonomy)
    rows = [
        annotation.row(
            pair=candidate.pair,
            latent=candidate.latent,
            role=candidate.role,
            parent=taxonomy.parent(annotation.category),
        )
        for annotation, (_, candidate) in zip(annotations, blind, strict=True)
    ]
    refuse_silence(annotations, annotation_run.subjects)
    rows.sort(key=_place)
    write_jsonl(rows, draft / "annotations.jsonl", ascii_only=True)
    write_jsonl(variant_rows(annotation_run, taxonomy, blind), draft / "variants.jsonl", ascii_only=True)
    (draft / "taxonomy.yaml").write_text(taxonomy.to_yaml(), encoding="utf-8")
    framing = _framing(annotation_run, taxonomy, blind)
    summary = summarise(rows, taxonomy) | ({"framing": framing} if framing else {})
    write_json(summary, draft / "annotate.json")
    told = {f"framing_{name}": f"{one['asserted']} of {one['answered']}" for name, one in framing.items()}
    return {
        **told,
        "n_subjects": len(rows),
        "n_answered": summary["n_answered"],
        "share_other": summary["share_other"],
        "cost_usd": round(annotation_run.spent(), 6),
    }


def refuse_silence(annotations: Sequence[Annotation], subjects: Sequence[Subject]) -> None:
    """ValueError where nothing was answered: such a step is not finished, and is run again."""
    asked = [a for a, subject in zip(annotations, subjects, strict=True) if subject.explain]
    if asked and not any(annotation.state in ANSWERED for annotation in asked):
        states = Counter(annotation.state for annotation in asked)
        listed = ", ".join(f"{count} {state}" for state, count in states.most_common())
        raise ValueError(
            f"nothing was answered: {listed} of {len(asked)} latents; look at the server, the key, the model "
            "and annotator.max_usd and run again (refusals are final: add lexical to annotator.fallback), or "
            "use annotator=lexical"
        )


def open_run(
    folders: Mapping[str, Path], annotator: AnnotatorSettings, seed: int, runtime: Runtime
) -> tuple[list[tuple[Subject, Candidate]], AnnotationRun]:
    """The blind, shuffled run over all pairs' `documents` folders, and what every subject stands for."""
    from crossdiff.annotation.annotators import AnnotationRun
    from crossdiff.annotation.subjects import blind_job

    candidates = [
        candidate for pair, folder in folders.items() for candidate in read_candidates(folder, pair)
    ]
    blind = blind_job(candidates, n_swapped=N_SWAPPED, seed=seed)
    annotation_run = AnnotationRun(
        annotator,
        subjects=[subject for subject, _ in blind],
        background=_background(folders.values()),
        seed=seed,
        store=runtime.store,
        device=runtime.device,
        progress=runtime.progress,
    )
    return blind, annotation_run


def read_candidates(folder: Path, pair: str) -> list[Candidate]:
    """The selected latents of one pair with their examples; without examples they still get a row."""
    from crossdiff.annotation.subjects import Candidate, examples_by_latent

    selection = read_json(folder / "selection.json")
    examples = examples_by_latent(read_table(folder / "examples.parquet", kind="examples"))
    candidates = []
    for entry in selection["latents"]:
        subsets = examples.get(int(entry["latent"]), {"explain": (), "score": ()})
        candidates.append(
            Candidate(pair, int(entry["latent"]), entry["role"], subsets["explain"], subsets["score"])
        )
    return candidates


def _background(folders: Any) -> list[Document]:
    """Background documents of all pairs, each document once."""
    from crossdiff.annotation.subjects import background_documents

    documents: dict[str, Document] = {}
    for folder in folders:
        for document in background_documents(read_table(folder / "background.parquet", kind="background")):
            documents.setdefault(document.document_id, document)
    return list(documents.values())


def _frozen(inputs: AnnotateInputs, annotation_run: AnnotationRun) -> Taxonomy:
    """The taxonomy that all latents of both pairs are assigned to; an induced one is made here, once."""
    match inputs.taxonomy:
        case InducedTaxonomy() as sizes:
            return induced(annotation_run, sizes)
        case _:
            return inputs.taxonomy.load()


def induced(annotation_run: AnnotationRun, sizes: InducedTaxonomy) -> Taxonomy:
    """A checked taxonomy out of the descriptions or keywords of the run's latents."""
    content = annotation_run.induce(sizes=(sizes.n_shuffles, sizes.n_classes, sizes.n_categories))
    provenance = "induced from the blind, shuffled descriptions of all pairs' latents"
    return parse_taxonomy(
        {"version": 1, "name": "induced", "provenance": provenance, **content}, where="induced taxonomy"
    )


def _annotations(annotation_run: AnnotationRun, taxonomy: Taxonomy) -> list[Annotation]:
    answers = annotation_run.annotator(taxonomy.categories).annotate(annotation_run.subjects)
    total = len(annotation_run.subjects)
    return list(
        track(answers, total=total, description="annotate", unit="latent", enabled=annotation_run.progress)
    )


def _place(row: Mapping[str, Any]) -> tuple[str, str, int]:
    return row["pair"], row["role"], row["latent"]


def variant_rows(
    annotation_run: AnnotationRun, taxonomy: Taxonomy, blind: Sequence[tuple[Subject, Candidate]]
) -> list[dict[str, Any]]:
    """The answers of every other way to label, without the controls."""
    rows = []
    chosen = [(subject, candidate) for subject, candidate in blind if candidate.role in EXCLUSIVE]
    for name, annotator in annotation_run.variants(taxonomy.categories).items():
        answers = annotator.annotate([subject for subject, _ in chosen])
        for answer, (_, candidate) in zip(answers, chosen, strict=True):
            known = {"pair": candidate.pair, "latent": candidate.latent, "role": candidate.role}
            rows.append(answer.variant_row(variant=name, **known))
    return sorted(rows, key=lambda row: (row["variant"], *_place(row)))


def _framing(
    asked: AnnotationRun, taxonomy: Taxonomy, blind: Sequence[tuple[Subject, Candidate]]
) -> dict[str, Asserted]:
    """Framing -> what was asserted of swapped controls, where the annotator's settings ask for it."""
    from crossdiff.annotation.subjects import SWAPPED

    swapped = [subject for subject, candidate in blind if candidate.role == SWAPPED]
    framings = asked.framings(taxonomy.categories)
    return {framing: asserted(annotator.annotate(swapped)) for framing, annotator in framings.items()}


def summarise(rows: Sequence[Mapping[str, Any]], taxonomy: Taxonomy) -> dict[str, Any]:
    """Counts of states, roles and categories, and the warnings that belong beside the deltas.

    `share_other` is of the exclusive latents alone: swapped controls should come out as `other`.
    """
    answered = [row for row in rows if row["state"] in ANSWERED]
    exclusive = [row for row in answered if row["role"] in EXCLUSIVE]
    others = sum(row["category"] == OTHER for row in exclusive)
    share_other = others / len(exclusive) if exclusive else None
    warnings = []
    if share_other is not None and share_other > OTHER_LIMIT:
        warnings.append(
            f"{others} of {len(exclusive)} answers on {_named(exclusive)} latents are `other` "
            f"({share_other:.0%}, limit {OTHER_LIMIT:.0%}): the taxonomy does not fit these latents well"
        )
    return {
        "version": 1,
        "taxonomy": {"name": taxonomy.name, "hash": taxonomy.hash},
        "n_subjects": len(rows),
        "n_answered": len(answered),
        "share_other": share_other,
        "states": dict(sorted(Counter(row["state"] for row in rows).items())),
        "roles": dict(sorted(Counter(row["role"] for row in rows).items())),
        "categories": dict(sorted(Counter(row["category"] for row in answered).items())),
        "answered_by": dict(sorted(Counter(row["annotator"] for row in rows).items())),
        "controls": _controls(rows),
        "warnings": warnings,
    }


def _named(rows: Sequence[Mapping[str, Any]]) -> str:
    return "exclusive" if rows[0]["role"].startswith("exclusive") else "the"


def _controls(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """How controls came out: swapped ones should end as `other` or `uninterpretable`."""
    controls = [row for row in rows if row["role"].startswith("control")]
    outcomes: dict[str, Counter[str]] = {}
    for row in controls:
        outcomes.setdefault(row["role"], Counter())[row["category"] or row["state"]] += 1
    return {role: dict(sorted(counts.items())) for role, counts in sorted(outcomes.items())}


STAGE = Stage(
    "annotate",
    version=VERSION,
    run=run,
    reads=("scale", "documents", "outputs"),
    writes="`annotations.<pair>.jsonl`, blind to the model",
    resources=needs(cpus=4, memory_gb=16, hours=24),
    has_settings=True,
)
