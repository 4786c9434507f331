"""Study: do exclusive latents drive behaviour? Their directions are added or removed during generation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field, model_validator

from crossdiff.models.config_file import check_can_be_asked
from crossdiff.models.pair import ModelPair, fingerprint
from crossdiff.report.runs import RunProducts
from crossdiff.report.study_page import Findings
from crossdiff.stages.study import Asked, ExtraStep, From, Study
from crossdiff.studies.steering.steered_pair import SteeredPair
from crossdiff.studies.steering.step import PLACES, SteerInputs

PROMPT_TOKENS = 30
N_CATEGORIES = 30


class Steering(Study):
    """Latents are pushed by `doses` of their largest code; the trend from 0 to `tested_to` decides.

    Doses beyond 1 exceed the latent's range; they are shown and not tested.
    """

    READS_CROSSCODERS: ClassVar[bool] = True
    QUESTION: ClassVar[str] = "Does pushing along exclusive latents move the behaviour of their category?"

    prompts: Literal["planted", "built_in"]
    doses: tuple[float, ...] = (-1.0, 0.25, 0.5, 1.0, 2.0)
    tested_to: float = Field(default=1.0, gt=0)
    n_latents: int = Field(ge=1)
    n_random: int = Field(ge=1)
    n_prompts: int = Field(ge=1)
    n_new_tokens: int = Field(ge=1)

    @model_validator(mode="after")
    def _some_dose_is_tested(self) -> Steering:
        if 0 in self.doses or len(set(self.doses)) < len(self.doses):
            raise ValueError(
                f"study.doses={list(self.doses)}: doses must differ; 0 is always asked, leave it out"
            )
        if not any(0 < dose <= self.tested_to for dose in self.doses):
            raise ValueError(
                f"study.doses={list(self.doses)} has no dose above 0 and up to study.tested_to="
                f"{self.tested_to:g}, so no trend can be tested; give one, such as 'study.doses=[0.5,1]'"
            )
        return self

    def extras(self, experiment: Asked) -> Mapping[str, ExtraStep]:
        """The answers of the tuned model under every push, per pair."""
        n_conditions = 1 + (len(self.doses) + 1) * (1 + self.n_random)
        n_answers = N_CATEGORIES * self.n_latents * n_conditions * len(PLACES) * self.n_prompts
        n_tokens = n_answers * (self.n_new_tokens + PROMPT_TOKENS)
        steps = {}
        for pair in experiment.pairs:
            check_can_be_asked(pair.tuned)
            parents = {
                "train": From("run", "train", pair.name),
                "documents": From("run", "documents", pair.name),
                "annotate": From("run", "annotate"),
                "organism": From("run", "organism", optional=True),
            }
            inputs = self._inputs(experiment, pair)
            steps[pair.name] = ExtraStep("steer", pair.name, inputs, parents, (pair.tuned,), n_tokens)
        return steps

    def _inputs(self, experiment: Asked, pair: ModelPair) -> SteerInputs:
        toy = experiment.organism.model_copy(update={"seed": experiment.seed})
        return SteerInputs(
            pair=pair.name,
            layer=experiment.layer,
            model=pair.tuned,
            fingerprint=fingerprint(pair.tuned),
            toy=toy if self.prompts == "planted" else None,
            doses=self.doses,
            n_latents=self.n_latents,
            n_random=self.n_random,
            n_prompts=self.n_prompts,
            n_new_tokens=self.n_new_tokens,
            seed=experiment.seed,
        )

    def analyse(self, runs: Mapping[str, RunProducts], extras: Mapping[str, Path]) -> Findings:
        """Latents and random directions with a rising rate, per pair, group and kind of prompts."""
        planted = (runs["run"].comparison or {}).get("planted") or ()
        groups = {row["name"]: row["group"] for row in planted}
        pairs = {
            pair: SteeredPair.read(pair, folder, groups, self.tested_to) for pair, folder in extras.items()
        }
        return Findings(
            " ".join(steered.sentence() for steered in pairs.values()),
            notes=tuple(note for steered in pairs.values() for note in steered.notes()),
            tiles=tuple(t for steered in pairs.values() for t in steered.tiles()),
            charts=tuple(chart for steered in pairs.values() if steered.rows for chart in steered.charts()),
            numbers={pair: steered.numbers for pair, steered in pairs.items()},
        )
