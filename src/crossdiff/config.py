"""Hydra's composed configuration becomes one typed `Experiment`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict
from pydantic import Field, SerializeAsAny, field_validator, model_validator

from crossdiff.annotation.settings import AnnotatorSettings
from crossdiff.command_settings import (
    AskSettings,
    CompareRuns,
    ExportSettings,
    FreezeSettings,
    LocalDispatch,
    LoggerSettings,
    SlurmDispatch,
    ValidateSettings,
)
from crossdiff.composition import composed
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.sparsity import AnySparsity, check_fits
from crossdiff.data.corpus import CorpusSettings
from crossdiff.data.settings import AnySource, ImportedSource, MaskSettings
from crossdiff.io.environment import conf_dir
from crossdiff.models.pair import Comparison, ModelPair
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Settings
from crossdiff.stages.documents import DocumentsSettings
from crossdiff.stages.study import Study
from crossdiff.taxonomy.scheme import TaxonomySettings
from crossdiff.training.settings import TrainingSettings, check_shards

Action = Literal[
    "run", "train", "plan", "status", "cancel", "retry",
    "ask", "compare", "studies", "validate", "render", "export", "taxonomy",
]  # fmt: skip
DEFAULT_CORPUS = "fineweb_lmsys_200m"
"""The corpus of conf/config.yaml, for the published models."""
LONGEST_NAME = 100
"""Most bytes of a run's or pair's name, which becomes part of file names of at most 255 bytes."""
NEEDS_NO_PAIR = ("compare", "studies")
"""Actions that need no model pair: they read results folders, or list the studies."""


class Experiment(Settings):
    """Everything that one command asks for: one typed field per configuration group or sweepable value."""

    layer: int = Field(ge=0)
    model_pair: ModelPair | None = None
    comparison: Comparison | None = None
    organism: ToySettings
    corpus: CorpusSettings
    mask: MaskSettings = MaskSettings()
    dictionary: DictionarySettings
    sparsity: AnySparsity
    training: TrainingSettings
    selection: SelectionSettings
    documents: DocumentsSettings = DocumentsSettings()
    annotator: AnnotatorSettings
    taxonomy: TaxonomySettings
    source: AnySource
    logger: LoggerSettings
    dispatch: LocalDispatch | SlurmDispatch
    study: SerializeAsAny[Study] | None = None
    crosscoder: str | None = None
    name: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
    draws: int = Field(default=5000, ge=100)
    device: str = "auto"
    store: Path = Path("store")
    results_dir: Path | None = None
    progress: bool = True
    action: Action = "run"
    plan: bool = False
    ask: AskSettings = AskSettings()
    export: ExportSettings = ExportSettings()
    validate_: ValidateSettings = Field(default=ValidateSettings(), alias="validate")
    freeze: FreezeSettings = FreezeSettings()
    compare: CompareRuns = CompareRuns()

    @field_validator("store", "results_dir", mode="before")
    @classmethod
    def _is_a_folder(cls, value: Any, info: Any) -> Any:
        """Refuse an empty path, which would mean the current folder."""
        if value == "":
            raise ValueError(
                f"{info.field_name}= is empty, which would scatter files over the current folder; name a "
                f"folder, as in {info.field_name}=my_folder, or leave it out"
            )
        return value

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        """Refuse an unknown device here: neither a plan nor a queued SLURM job opens it."""
        if not re.fullmatch(r"auto|(cpu|cuda)(:\d+)?", device):
            raise ValueError(f"device={device} is unknown; choose auto, cpu, cuda or cuda:<number>")
        return device

    @model_validator(mode="after")
    def _names_are_words(self) -> Experiment:
        """Names become folders and files inside the results."""
        pairs = () if self.model_pair is None and self.comparison is None else self.pairs
        for name in (self.name, *(pair.name for pair in pairs)):
            if name is not None and (name in ("", ".", "..") or "/" in name):
                raise ValueError(
                    f"name={name!r} names files inside the results, so it must be a word without '/'; "
                    "choose such a name (name=... of the run, model_pair.name=... of its pair), and "
                    "results_dir=... for another folder"
                )
            if name is not None and len(name.encode("utf-8", "surrogatepass")) > LONGEST_NAME:
                raise ValueError(
                    f"name={name[:40]}... has {len(name)} characters and names files inside the results; "
                    f"give a name of at most {LONGEST_NAME} bytes (name=..., model_pair.name=...)"
                )
        return self

    @model_validator(mode="after")
    def _can_be_asked(self) -> Experiment:
        if self.action in NEEDS_NO_PAIR:
            return self
        if (self.model_pair is None) == (self.comparison is None):
            given = "neither" if self.model_pair is None else "both"
            raise ValueError(
                f"{given} of model_pair and comparison given; choose one: model_pair=pt_simpo layer=20, "
                "comparison=it_vs_simpo layer=20, or experiment=demo to see it all on a toy (~comparison "
                "removes that of a preset)"
            )
        kind = self.dictionary.architecture
        check_fits(self.sparsity, n_latents=self.dictionary.n_latents, architecture=kind)
        self.training.check_models(n_models=1 if kind == "diff_sae" else 2)
        check_shards(self.dictionary, self.sparsity, self.training)
        if kind == "diff_sae":
            self._refuse_what_asks_for_calls()
        return self

    def _refuse_what_asks_for_calls(self) -> None:
        """A difference dictionary has one direction per latent, so that none is called one model's own."""
        asked = None
        if self.study is not None:
            asked = "a study"
        elif self.comparison is not None and self.comparison.seed_null:
            asked = "comparison.seed_null"
        elif self.documents.n_drifted:
            asked = "documents.n_drifted"
        elif self.action in ("ask", "validate") or (
            self.action == "export" and self.export.what != "checkpoint"
        ):
            asked = f"action={self.action}"
        if asked is not None:
            raise ValueError(
                f"{asked} needs one direction per model, and dictionary.architecture=diff_sae makes no call "
                "(one direction per latent); give action=run with model_pair=... or comparison=... for "
                "its own report by sign of effect, or another architecture"
            )

    @property
    def pairs(self) -> tuple[ModelPair, ...]:
        """The one model pair, or the reference and the treatment of a comparison."""
        if self.comparison is not None:
            return (self.comparison.reference, self.comparison.treatment)
        assert self.model_pair is not None
        return (self.model_pair,)

    @property
    def members(self) -> dict[str, tuple[ModelPair, ...]]:
        """Pair name -> its members, one per crosscoder; with one crosscoder the pair itself."""
        if self.comparison is None:
            return {pair.name: (pair,) for pair in self.pairs}
        return self.comparison.members(self.seed)

    @property
    def title(self) -> str:
        """Name of the run: the experiment's, else the comparison's or the pair's."""
        return self.name or "_vs_".join(pair.name for pair in self.pairs)

    @property
    def results(self) -> Path:
        """Folder of the finished products."""
        return self.results_dir or Path("results") / f"{self.title}_{self.layer}"


def load(cfg: DictConfig) -> Experiment:
    """Build the typed experiment; no other code calls `instantiate` or sees a `DictConfig`."""
    if cfg.action in NEEDS_NO_PAIR and OmegaConf.is_missing(cfg, "layer"):
        cfg.layer = 0
    with open_dict(cfg):
        if cfg.study is not None and "sizes" in cfg.study:
            OmegaConf.resolve(cfg.study)
            del cfg.study["sizes"]
        del cfg["size"]
        if cfg.comparison is not None and "_target_" not in cfg.comparison:
            cfg.comparison = None  # `~comparison` leaves what a preset added to it, such as n_seeds
    return instantiate(cfg, _convert_="all")


def load_typed(cfg: DictConfig, hydra: Any) -> Experiment:
    """`load`; ValueError when a local model would read the default corpus, which nobody named."""
    experiment = load(cfg)
    given = [text.lstrip("+~").partition("=")[0].partition(".")[0] for text in hydra.overrides.task]
    choices = hydra.runtime.choices
    is_named = choices["corpus"] != DEFAULT_CORPUS or bool(choices["experiment"]) or "corpus" in given
    is_named |= isinstance(experiment.source, ImportedSource)  # which brings its own tokens
    pairs = () if is_named or experiment.action in NEEDS_NO_PAIR else experiment.pairs
    models = (model for pair in pairs for model in (pair.base, pair.tuned))
    local = next((model.path for model in models if Path(model.path).expanduser().is_dir()), None)
    if local is not None:
        raise ValueError(
            f"{local} is a local model and no corpus is given, so the default would stream 200M tokens; give "
            f"documents (corpus=files 'corpus.paths=[folder]'), or corpus={DEFAULT_CORPUS} to use the default"
        )
    return experiment


def study_names() -> list[str]:
    """Names of the presets in `conf/experiment` that run a study."""
    files = sorted((conf_dir() / "experiment").glob("*.yaml"))
    return [path.stem for path in files if "override /study:" in path.read_text(encoding="utf-8")]


def study_presets() -> list[tuple[str, str, Experiment]]:
    """(study, size, experiment) of every study at each of its sizes."""
    asked = [(study, size) for study in study_names() for size in ("ci", "toy", "paper")]
    return [(name, size, _preset(f"experiment={name}", f"size={size}")) for name, size in asked]


def _preset(*overrides: str) -> Experiment:
    return load(composed(str(conf_dir()), overrides))
