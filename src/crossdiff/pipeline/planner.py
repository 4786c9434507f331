"""The steps of one experiment, built on demand; `ordered` lists a step with its ancestors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property

from crossdiff.config import Comparison, Experiment
from crossdiff.data.corpus import OrganismSource, as_mixture
from crossdiff.data.corpus import fingerprint as corpus_fingerprint
from crossdiff.data.settings import ImportedSource
from crossdiff.io.artifacts import read_manifest
from crossdiff.models.pair import ModelPair, ModelSettings
from crossdiff.pipeline import cost
from crossdiff.pipeline.activation_steps import blend_step, harvest_step, imported_tokens
from crossdiff.pipeline.alignment_checks import tokenizers_of
from crossdiff.pipeline.checks import check_first_records, check_pair, fitted
from crossdiff.pipeline.crosscoder_step import crosscoder_step, n_latents
from crossdiff.pipeline.memory import sharded_gb, training_gb
from crossdiff.pipeline.steps import PER_CROSSCODER, Step
from crossdiff.pipeline.toy_steps import (
    organism_step,
    planted_between,
    represented_step,
    tune_again_step,
)
from crossdiff.pipeline.weight_checks import check_tokenizers, check_weights
from crossdiff.stages.annotate import AnnotateInputs
from crossdiff.stages.compare import CompareInputs
from crossdiff.stages.documents import DocumentsInputs
from crossdiff.stages.match import ROLES as MATCH_ROLES
from crossdiff.stages.match import MatchInputs
from crossdiff.stages.report import ReportInputs
from crossdiff.stages.scale import ScaleInputs
from crossdiff.stages.tokens import TokensInputs
from crossdiff.statistics.seed_null import load_seed_null


def ordered(last: Step) -> list[Step]:
    """`last` and all its ancestors, parents first, one step per key."""
    steps: dict[str, Step] = {}

    def visit(step: Step) -> None:
        if step.key in steps:
            return
        for parent in step.parents.values():
            visit(parent)
        steps[step.key] = step

    visit(last)
    return list(steps.values())


class Planner:
    """Builds each step once, so pairs share equal steps."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = fitted(experiment)
        self.harvests: dict[str, Step] = {}

    @cached_property
    def organism(self) -> dict[str, Step]:
        """The toy triple as a parent, when a model or the corpus comes from it."""
        return organism_step(self.experiment)

    @cached_property
    def tokens(self) -> Step:
        """The token set of all models, made with the reference pair's template."""
        if isinstance(self.experiment.source, ImportedSource):
            return imported_tokens(self.experiment, self.experiment.source, self.organism)
        corpus = self.experiment.corpus
        tokenizers = tokenizers_of(self.experiment.pairs[0])
        inputs = TokensInputs(corpus=corpus, corpus_fingerprint=corpus_fingerprint(corpus), **tokenizers)
        size = cost.tokens_cost(self.asked_tokens)
        return Step("tokens", as_mixture(corpus).name, inputs, self.organism, size)

    @cached_property
    def n_tokens(self) -> int | None:
        """Tokens of the finished token set; before that, what the corpus asks for."""
        store = self.experiment.store
        if self.asked_tokens is None and self.tokens.is_finished(store):
            return read_manifest(self.tokens.folder(store))["counts"]["n_tokens"]
        return self.asked_tokens

    @property
    def asked_tokens(self) -> int | None:
        """Tokens that the corpus asks for, about those of the toy's; None when files are read whole."""
        if isinstance(self.experiment.source, ImportedSource):
            return self.tokens.inputs.n_rows  # type: ignore[attr-defined]
        mixture = as_mixture(self.experiment.corpus)
        if mixture.n_tokens is None and all(isinstance(source, OrganismSource) for source in mixture.sources):
            return cost.toy_tokens(self.experiment.organism)
        return mixture.n_tokens

    def harvest(self, model: ModelSettings) -> Step:
        """One model's activations at the experiment's layer."""
        parents = {"tokens": self.tokens, **self.organism}
        parents |= blend_step(self.experiment, model, self.organism)
        parents |= tune_again_step(self.experiment, model, self.organism)
        step = harvest_step(self.experiment, model, parents, n_tokens=self.n_tokens)
        return self.harvests.setdefault(step.key, step)

    def activations(self, pair: ModelPair) -> dict[str, Step]:
        """Tokens and the harvests of both models; ValueError where these do not fit each other."""
        experiment = self.experiment
        check_pair(pair, experiment.corpus, experiment.organism)
        harvests = {"harvest_base": self.harvest(pair.base), "harvest_tuned": self.harvest(pair.tuned)}
        imported = isinstance(experiment.source, ImportedSource)
        if not imported and not all(step.is_finished(experiment.store) for step in harvests.values()):
            if not self.tokens.is_finished(experiment.store):
                check_first_records(experiment.corpus, self.tokens.inputs.corpus_fingerprint)  # type: ignore[attr-defined]
            check_tokenizers(experiment.pairs[0].template_model, pair, experiment.corpus)
            check_weights(pair, layer=experiment.layer)
        return {"tokens": self.tokens, **harvests}

    def chain(self, pair: ModelPair) -> Mapping[str, Step]:
        """train, scale and documents of one pair."""
        experiment, parents = self.experiment, self.activations(pair)
        shared = {"layer": experiment.layer, "mask": experiment.mask}
        training = self.crosscoder_cost(pair, products=cost.STEP_PER_ENCODER_PRODUCT, training=True)
        train = crosscoder_step(experiment, pair, parents, training=training)
        size = n_latents(train, experiment)
        scaling = self.crosscoder_cost(pair, products=1.5, training=False, n_latents=size)
        parents = {**parents, "train": train}
        scale = Step(
            "scale", pair.name, ScaleInputs(selection=experiment.selection, **shared), parents, scaling
        )
        documents = Step(
            "documents",
            pair.name,
            DocumentsInputs(pair=pair.name, documents=experiment.documents, seed=experiment.seed, **shared),
            {**parents, "scale": scale, **self.organism},
            scaling,
        )
        return {"train": train, "scale": scale, "documents": documents}

    def crosscoder_cost(
        self, pair: ModelPair, *, products: float, training: bool, n_latents: int | None = None
    ) -> cost.Cost:
        """Cost of the pair's training, or of a pass over all tokens."""
        experiment, shape = self.experiment, cost.wider_shape(pair, self.experiment.organism)
        steps = experiment.training.total_steps() * experiment.training.batch_size
        size = cost.crosscoder_cost(
            shape,
            n_latents=n_latents or experiment.dictionary.n_latents,
            n_tokens=steps if training else self.n_tokens,
            products=products,
            disk=training,
        )
        if not training:
            return size
        size = size + cost.steps_cost(experiment.training.total_steps())
        how = (experiment.dictionary, experiment.sparsity, experiment.training)
        if shape is None:
            return replace(size, memory_gb=None)
        need, shards_gb = training_gb(*how, d_model=shape.d_model), sharded_gb(*how, d_model=shape.d_model)
        return replace(size, memory_gb=need, shards_gb=shards_gb)

    @cached_property
    def chains(self) -> dict[str, Mapping[str, Step]]:
        """Member -> its train, scale and documents steps; a pair with one crosscoder is its own member."""
        members = [member for group in self.experiment.members.values() for member in group]
        return {member.name: self.chain(member) for member in members}

    @property
    def names(self) -> dict[str, tuple[str, ...]]:
        """Pair -> the names of its members; the report's charts are of the first."""
        groups = self.experiment.members.items()
        return {pair: tuple(member.name for member in group) for pair, group in groups}

    @cached_property
    def annotate(self) -> Step:
        """All pairs' latents in one blind job."""
        names = tuple(self.chains)
        inputs = AnnotateInputs(
            annotator=self.experiment.annotator,
            taxonomy=self.experiment.taxonomy,
            pairs=names,
            seed=self.experiment.seed,
        )
        parents = {
            f"{stage}_{name}": self.chains[name][stage] for name in names for stage in ("documents", "scale")
        }
        n_drifted = self.experiment.documents.n_drifted
        price = cost.annotation_cost(self.experiment.annotator, n_pairs=len(names), n_drifted=n_drifted)
        return Step("annotate", "_and_".join(self.experiment.members), inputs, parents, price)

    @cached_property
    def compare(self) -> Step | None:
        """The deltas, when two pairs are given."""
        comparison = self.experiment.comparison
        if comparison is None:
            return None
        reference, treatment = comparison.reference.name, comparison.treatment.name
        trained = {chain["train"].key for chain in self.chains.values()}
        inputs = CompareInputs(
            reference=reference,
            treatment=treatment,
            seed=self.experiment.seed,
            draws=self.experiment.draws,
            null=load_seed_null(comparison.seed_null, trained) if comparison.seed_null else None,
            members=self.names if comparison.n_seeds > 1 else {},
            left_out=comparison.without,
            by_sign=self.experiment.dictionary.architecture == "diff_sae",
        )
        parents = {"annotate": self.annotate, **({} if inputs.by_sign else {"match": self.match(comparison)})}
        stages = ("scale", "documents") if comparison.n_seeds == 1 else PER_CROSSCODER
        for stage in stages:
            parents |= {f"{stage}_{name}": chain[stage] for name, chain in self.chains.items()}
        if planted_between(comparison):
            parents |= self.organism
            toy = {**self.organism, "tokens": self.tokens}
            parents |= represented_step(self.experiment, comparison, toy, self.harvest)
        return Step("compare", f"{reference}_vs_{treatment}", inputs, parents)

    def match(self, comparison: Comparison) -> Step:
        """Twins of each pair's exclusive latents in the other pair's first crosscoder."""
        experiment, parents = self.experiment, {"tokens": self.tokens}
        names = (self.names[comparison.reference.name][0], self.names[comparison.treatment.name][0])
        for pair, name in zip(experiment.pairs, names, strict=True):
            steps = {**self.activations(pair), **self.chains[name]}
            parents |= {f"{role}_{name}": steps[role] for role in MATCH_ROLES}
        inputs = MatchInputs(pairs=names, layer=experiment.layer, mask=experiment.mask)
        size = self.crosscoder_cost(comparison.reference, products=2.0, training=False)
        return Step("match", "_vs_".join(names), inputs, parents, size)

    @cached_property
    def report(self) -> Step:
        """The report, whose parents are all other steps' artifacts."""
        comparison = self.experiment.comparison
        inputs = ReportInputs(
            title=self.experiment.title,
            pairs=tuple(names[0] for names in self.names.values()),
            reference=self.names[comparison.reference.name][0] if comparison else None,
            treatment=self.names[comparison.treatment.name][0] if comparison else None,
            members={n[0]: n for n in self.names.values() if comparison and comparison.n_seeds > 1},
        )
        parents = {
            f"{stage}_{name}": step for name, chain in self.chains.items() for stage, step in chain.items()
        }
        parents |= {"tokens": self.tokens, "annotate": self.annotate, **self.organism}
        if self.compare is not None:
            parents["compare"] = self.compare
        return Step("report", self.experiment.title, inputs, parents)
