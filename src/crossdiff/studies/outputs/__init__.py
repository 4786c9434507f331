"""Baseline: what both models' logits say, with no crosscoder, through the same annotator and taxonomy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, model_validator

from crossdiff.annotation.results import ANSWERED
from crossdiff.core.files import file_sha256
from crossdiff.data.settings import MaskSettings
from crossdiff.io.tables import read_json, read_jsonl
from crossdiff.models.pair import ORGANISM, ModelPair, ModelSettings, fingerprint
from crossdiff.report.formatting import told
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Findings
from crossdiff.settings import Settings
from crossdiff.stages.annotate import AnnotateInputs
from crossdiff.stages.study import Asked, Changes, ExtraStep, From, Study
from crossdiff.taxonomy.scheme import load_taxonomy

if TYPE_CHECKING:
    from crossdiff.studies.outputs.topic_changes import TopicChanges

TOKENS_PER_DOCUMENT = 512
LABELS = "labels"
RAISED = "raised"
"""Role of a topic in the files that annotators read: tokens that the tuned model raises together."""
TOY = [f"{ORGANISM}{name}" for name in ("it", "simpo")]
"""The tuned models between which the toy's truth lies."""


class OutputsInputs(Settings):
    """What determines one pair's figures, beside the parents (tokens and, of the toy, the organism).

    n_documents     documents, drawn from all over the corpus
    top_k           tokens per position that count as raised (or lowered) most
    n_topics        topics of the raised tokens
    min_documents   a token belongs to topics from so many documents on that raise it among their top_k
    n_examples      positions per topic that an annotator reads, one per document
    window          tokens of text before such a position
    """

    base: ModelSettings
    tuned: ModelSettings
    fingerprints: tuple[str, str]
    """`models.pair.fingerprint` of both: what the models are, wherever they lie."""
    mask: MaskSettings = MaskSettings()
    n_documents: int = Field(default=2000, ge=2)
    top_k: int = Field(default=10, ge=1)
    n_topics: int = Field(default=60, ge=1)
    min_documents: int = Field(default=3, ge=1)
    n_examples: int = Field(default=20, ge=2)
    window: int = Field(default=32, ge=1)
    n_background: int = Field(default=300, ge=0)
    batch_tokens: int = Field(default=2048, ge=1)
    seed: int = 0


class Outputs(Study):
    """Logit differences, topics of the raised tokens, and perplexity differences of every pair.

    `beside` is the results folder of a finished comparison of the same pairs by crosscoders, whose category
    changes are then held against those of the topics.
    """

    READS_CROSSCODERS: ClassVar[bool] = True
    QUESTION: ClassVar[str] = "What do the logits alone say of the difference between the models?"

    n_documents: int = Field(default=2000, ge=2)
    top_k: int = Field(default=10, ge=1)
    n_topics: int = Field(default=60, ge=1)
    beside: str | None = None
    beside_sha256: str | None = None
    """Of the deltas in that folder, taken when the study is read: other content is another study."""

    @model_validator(mode="before")
    @classmethod
    def _with_content(cls, data: Any) -> Any:
        if isinstance(data, Mapping) and data.get("beside") and not data.get("beside_sha256"):
            deltas = Path(data["beside"]).expanduser() / "deltas.csv"
            return {**data, "beside_sha256": file_sha256(deltas) if deltas.is_file() else None}
        return data

    def runs(self, experiment: Asked) -> Mapping[str, Changes]:
        """No report: nothing is trained."""
        if self.beside is not None:
            _opened(self.beside)  # refused before the models run
        return {}

    def groundwork(self, experiment: Asked) -> Mapping[str, Changes]:
        """Tokens, and the toy where it is asked for."""
        return {"pairs": {}}

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """The pass of every pair, and one blind annotation of all topics."""
        if experiment.mask.outlier_norm is not None:
            raise ValueError(
                "study outputs has no activations, so mask.outlier_norm has no norms to look at; leave it out"
            )
        steps = {pair.name: self._step(experiment, pair) for pair in experiment.pairs}
        inputs = AnnotateInputs(
            annotator=experiment.annotator,
            taxonomy=experiment.taxonomy,
            pairs=tuple(steps),
            seed=experiment.seed,
        )
        parents = {f"documents_{pair}": step for pair, step in steps.items()}
        n_topics = len(steps) * self.n_topics
        labels = ExtraStep("annotate", "_and_".join(steps), inputs, parents, n_labelled=n_topics)
        return {**steps, LABELS: labels}

    def _step(self, experiment: Asked, pair: ModelPair) -> ExtraStep:
        inputs = OutputsInputs(
            base=pair.base,
            tuned=pair.tuned,
            fingerprints=(fingerprint(pair.base), fingerprint(pair.tuned)),
            mask=experiment.mask,
            n_documents=self.n_documents,
            top_k=self.top_k,
            n_topics=self.n_topics,
            seed=experiment.seed,
        )
        parents = {"tokens": From("pairs", "tokens"), "organism": From("pairs", "organism", optional=True)}
        n_tokens = self.n_documents * TOKENS_PER_DOCUMENT
        return ExtraStep("outputs", pair.name, inputs, parents, (pair.base, pair.tuned), n_tokens)

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Tokens, documents and topics of every pair; of two pairs the changes of the topics' categories."""
        from crossdiff.studies.outputs import shown

        pairs = [name for name in extras if name != LABELS]
        records = {pair: read_json(extras[pair] / "outputs.json") for pair in pairs}
        labels = _labels(extras[LABELS], pairs)
        charts = [shown.figures_chart(records)]
        for pair in pairs:
            charts += shown.pair_charts(pair, extras[pair], records[pair], labels[pair])
        changes = self._changes(extras, records, labels)
        if changes is not None:
            charts.insert(1, shown.changes_chart(changes))
        numbers = {
            "pairs": {pair: {**record, "labels": dict(labels[pair])} for pair, record in records.items()},
            "changes": None if changes is None else changes.numbers(),
        }
        parts = [_sentence(pair, record) for pair, record in records.items()]
        parts += [] if changes is None else [changes.sentence()]
        return Findings(" ".join(parts), notes=NOTES, charts=tuple(charts), numbers=numbers)

    def _changes(
        self,
        extras: Mapping[str, Path],
        records: Mapping[str, Mapping[str, Any]],
        labels: Mapping[str, Mapping[int, str]],
    ) -> TopicChanges | None:
        from crossdiff.studies.outputs.topic_changes import compared

        pairs = list(records)
        if len(pairs) != 2:
            return None
        is_toy = [records[pair]["tuned"] for pair in pairs] == TOY
        truth = extras[pairs[1]] / "planted.json"
        return compared(
            (list(labels[pairs[0]].values()), list(labels[pairs[1]].values())),
            load_taxonomy(extras[LABELS] / "taxonomy.yaml"),
            planted=read_json(truth)["categories"] if is_toy else None,
            beside=None if self.beside is None else _opened(self.beside),
        )


NOTES = (
    "Not comparable with a report by crosscoders: the number of topics is chosen (study.n_topics) and not "
    "found, so a topic is no latent and counts of topics are no evidence of how much there is; topics of one "
    "factorisation share tokens, so no p-value is taken of them; nothing here says where in the models a "
    "change lies, nor what a model holds and does not say.",
    "A topic's label is that of the positions where it is largest: the text up to there, then the tokens "
    "that the tuned model raises most.",
)


def _opened(folder: str) -> RunProducts:
    """The results of a comparison; ValueError for a folder that is none."""
    run = RunProducts("beside", Path(folder).expanduser())
    missing = [name for name in ("summary.json", "deltas.csv") if not (run.folder / name).is_file()]
    if missing:
        raise ValueError(
            f"study.beside={folder} has no {missing[0]}; give the results folder of a finished comparison of "
            "two pairs (results/demo), or leave it out"
        )
    return run


def _labels(folder: Path, pairs: list[str]) -> dict[str, dict[int, str]]:
    """Pair -> topic -> category, of the topics that were answered."""
    labels: dict[str, dict[int, str]] = {pair: {} for pair in pairs}
    for row in read_jsonl(folder / "annotations.jsonl"):
        if row["role"] == RAISED and row["state"] in ANSWERED:
            labels[row["pair"]][int(row["latent"])] = row["category"]
    return labels


def _sentence(pair: str, record: Mapping[str, Any]) -> str:
    if record["n_tokens_that_differ"] == 0:
        return (
            f"{pair}: both models predict the same at all {record['n_positions']:,} positions, so nothing "
            "is raised."
        )
    raised = ", ".join(repr(token.strip() or token) for token in record["most_raised"])
    kl = f"{told(record['kl'], '.3f')} nats per token"
    return (
        f"{pair}: the next token's KL(tuned || base) is {kl} ({told(record['kl_low'], '.3f')} to "
        f"{told(record['kl_high'], '.3f')}); the tuned model finds {record['n_likelier']:,} of "
        f"{record['n_documents']:,} documents likelier; most often raised: {raised or 'no token'}."
    )
