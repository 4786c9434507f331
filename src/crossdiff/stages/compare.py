"""Stage compare: annotations of two pairs -> deltas, verdict, and (toy only) the recovered changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.io.tables import read_json, read_jsonl, read_table, write_json
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.statistics.seed_null import SeedNullChanges
from crossdiff.taxonomy.scheme import Taxonomy, load_taxonomy

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.stages.compared_pairs import PairAnswers

VERSION = 6


class CompareInputs(Settings):
    """`reference` and `treatment` are pair names; the change is treatment against reference."""

    reference: str
    treatment: str
    seed: int
    draws: int = 5000
    null: SeedNullChanges | None = None
    members: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """Pair -> names of its crosscoders, where it has several; annotations bear these names."""
    left_out: tuple[str, ...] = ()
    """Crosscoders that failed and are not among the members; the page names them."""
    by_sign: bool = False
    """Of difference dictionaries (diff_sae): latents by the sign of their effect, not exclusive ones."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"members", "left_out", "by_sign"})

    def members_of(self, pair: str) -> tuple[str, ...]:
        """Names of a pair's crosscoders; with one crosscoder the pair's name."""
        return self.members.get(pair, (pair,))

    @property
    def sides(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The crosscoders of the reference and those of the treatment."""
        return self.members_of(self.reference), self.members_of(self.treatment)


def run(inputs: CompareInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write deltas.csv and comparison.json."""
    import numpy as np

    from crossdiff.stages.compared_pairs import choices, member_notes, pair_answers, refusal_notes
    from crossdiff.stages.compared_signs import compare_signs
    from crossdiff.statistics.recovery import against_represented
    from crossdiff.statistics.verdict import multiverse

    taxonomy = load_taxonomy(parents["annotate"] / "taxonomy.yaml")
    rows = read_jsonl(parents["annotate"] / "annotations.jsonl")
    if inputs.by_sign:
        return compare_signs(rows, inputs, parents, draft, deltas=partial(_deltas, inputs, taxonomy=taxonomy))
    reference, treatment = (
        pair_answers(rows, pair, inputs.members_of(pair), parents)
        for pair in (inputs.reference, inputs.treatment)
    )
    deltas = _deltas(inputs, reference, treatment, taxonomy=taxonomy)
    deltas["p_seed_null"] = np.nan if inputs.null is None else inputs.null.p_values(deltas)
    represented = _represented(parents)
    if represented is not None:
        deltas = _with_truth(deltas, parents, represented)
    deltas.to_csv(draft / "deltas.csv", index=False)
    comparison = _comparison(inputs, reference, treatment, deltas)
    comparison["multiverse"] = multiverse(choices(inputs.sides, parents, rows), taxonomy)
    comparison |= _against_truth(inputs, reference, treatment, parents.get("organism"))
    comparison["labels"] = labels(inputs, parents, rows)
    comparison["notes"] += [*label_notes(comparison["labels"]), *refusal_notes(comparison["refusal_bounds"])]
    comparison["notes"] += [*seed_null_notes(inputs.null, deltas), *member_notes(comparison)]
    if represented is not None:
        comparison |= against_represented(represented, deltas, draws=inputs.draws, seed=inputs.seed)
    comparison |= _matching(parents.get("match"))
    write_json(comparison, draft / "comparison.json")
    return {
        "verdict": comparison["verdict"],
        "n_labelled_reference": reference.side.total,
        "n_labelled_treatment": treatment.side.total,
        "spearman": (comparison["spearman"] or {}).get("rho"),
    }


def _deltas(
    inputs: CompareInputs, reference: PairAnswers, treatment: PairAnswers, *, taxonomy: Taxonomy
) -> pd.DataFrame:
    """Deltas of single crosscoders, or of all members of both pairs."""
    from crossdiff.statistics.deltas import category_deltas
    from crossdiff.statistics.ensemble import ensemble_deltas

    settings: dict[str, Any] = {"taxonomy": taxonomy, "draws": inputs.draws, "seed": inputs.seed}
    if inputs.members:
        runs = ([run.labels for run in answers.runs.values()] for answers in (reference, treatment))
        return ensemble_deltas(*runs, **settings)
    return category_deltas(reference.side.labels, treatment.side.labels, **settings)


def labels(
    inputs: CompareInputs, parents: Mapping[str, Path], rows: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Labels against the planted categories of the documents; None without an organism."""
    from crossdiff.statistics.recovery import label_check

    truth = parents.get("organism", Path()) / "document_categories.json"
    pairs = [name for side in inputs.sides for name in side]
    if "organism" not in parents or not truth.is_file() or f"documents_{pairs[0]}" not in parents:
        return None
    examples = {
        pair: read_table(parents[f"documents_{pair}"] / "examples.parquet", kind="examples") for pair in pairs
    }
    return label_check(rows, examples, read_json(truth))


def label_notes(check: Mapping[str, Any] | None) -> list[str]:
    """How many exclusive latents have a label, and the right one; empty where unknown."""
    facts = (check or {}).get("exclusive") or {}
    if not facts.get("n_labelled"):
        return []
    return [
        f"{facts['n_labelled']} of {facts['n']} exclusive latents ({facts['share_labelled']:.0%}) have a "
        f"category; for {facts['n_right']} of them ({facts['share_right']:.0%}) it is the one that dominates "
        "the planted categories of their top documents"
    ]


def seed_null_notes(null: SeedNullChanges | None, deltas: pd.DataFrame) -> list[str]:
    """How many changes beyond chance exceed those of another seed; empty without a null."""
    from crossdiff.statistics.verdict import LEVEL, claims

    if null is None:
        return []
    claimed = claims(deltas)
    beyond = int((claimed.p_seed_null < LEVEL).sum())
    apart = f"; {null.n_left_out} more share a crosscoder with this comparison and are left out"
    return [
        f"Held against another seed: of {len(claimed)} classes and categories that change beyond chance, "
        f"{beyond} change more than 95 % of those of {null.n_comparisons} comparisons of crosscoders that "
        f"differ in their seed alone ({len(null.of_categories)} category changes; column `p_seed_null`"
        f"{apart if null.n_left_out else ''}). "
        "That null holds the noise of training a dictionary only: not that of corpus, models or annotator"
    ]


def _comparison(
    inputs: CompareInputs, reference: PairAnswers, treatment: PairAnswers, deltas: pd.DataFrame
) -> dict[str, Any]:
    from crossdiff.stages.compared_pairs import members_record
    from crossdiff.statistics.verdict import refusal_bounds, verdict

    both = (reference, treatment)
    notes = [
        f"{answers.pair} has no labelled exclusive latent: no share and no change can be computed"
        for answers in both
        if answers.side.total == 0
    ]
    return {
        "version": 1,
        "reference": inputs.reference,
        "treatment": inputs.treatment,
        "draws": inputs.draws,
        "n_exclusive": {answers.pair: answers.n_exclusive for answers in both},
        "n_labelled": {answers.pair: answers.side.total for answers in both},
        "unanswered": {answers.pair: answers.unanswered for answers in both},
        "refusal_bounds": refusal_bounds(
            deltas,
            reference=reference.unanswered.get("refused", 0),
            treatment=treatment.unanswered.get("refused", 0),
        ),
        "power": _power(reference.side.total, treatment.side.total, deltas),
        "verdict": verdict(deltas),
        "notes": notes,
    } | (members_record(both, deltas, left_out=inputs.left_out) if inputs.members else {})


def _power(n_reference: int, n_treatment: int, deltas: pd.DataFrame) -> dict[str, Any]:
    """Power of Fisher's test, or of the interval over seeds where their spread was measured."""
    from crossdiff.stages.compared_pairs import typical_spread
    from crossdiff.statistics.dispersion import power_over_seeds
    from crossdiff.statistics.significance import power_line

    spread = typical_spread(deltas)
    if spread is None:
        return power_line(n_reference=n_reference, n_treatment=n_treatment)
    return power_over_seeds(n_reference, n_treatment, *spread)


def _matching(match: Path | None) -> dict[str, Any]:
    """Exclusive latents with a twin in the other pair (stage match); empty without that step."""
    if match is None:
        return {}
    record = read_json(match / "matches.json")
    counts = {"counts": record["pairs"], "n_tokens": record["n_tokens"], "rule": record["rule"]}
    return {"matched": {**record["matched"], **counts}}


def _against_truth(
    inputs: CompareInputs, reference: PairAnswers, treatment: PairAnswers, organism: Path | None
) -> dict[str, Any]:
    """The planted truth, joined after the labels are made; None without an organism."""
    from crossdiff.statistics.recovery import recovery

    if organism is None or not (organism / "planted.json").is_file():
        return {"recovered": None, "planted": None, "spearman": None, "groups": None}
    planted = read_json(organism / "planted.json")["categories"]
    return recovery(planted, reference.side, treatment.side, draws=inputs.draws, seed=inputs.seed)


def _represented(parents: Mapping[str, Path]) -> list[dict[str, Any]] | None:
    """The represented share of every category (stage represented); None without that step."""
    if "represented" not in parents:
        return None
    return read_json(parents["represented"] / "represented.json")["categories"]


def _with_truth(
    deltas: pd.DataFrame, parents: Mapping[str, Path], represented: Sequence[Mapping[str, Any]]
) -> pd.DataFrame:
    """`deltas` with columns for every category's planted and represented change."""
    planted = read_json(parents["organism"] / "planted.json")["categories"]
    for name, truth in (("planted", planted), ("represented", represented)):
        changes = {row["name"]: row["change"] for row in truth}
        deltas[f"{name}_change"] = deltas.name.map(changes).astype(float)
    return deltas


STAGE = Stage(
    "compare",
    version=VERSION,
    run=run,
    reads=("organism", "represented", "train", "scale", "match", "documents", "annotate"),
    writes="`deltas.csv`: counts, shares, change, interval, p, q",
    resources=needs(memory_gb=16, hours=1),
    has_settings=True,
)
