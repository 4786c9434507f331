"""The one Hydra-aware module: the composed configuration becomes an `Experiment`, or one clear message."""

from __future__ import annotations

import difflib
import re
from pathlib import Path
from typing import Any, Literal

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import (
    ConfigCompositionException,
    HydraException,
    InstantiationException,
    MissingConfigException,
)
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from crossdiff.action_settings import CompareRuns, ExportSettings, FreezeSettings, ValidateSettings
from crossdiff.annotation.settings import AnnotatorSettings
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.selection import SelectionSettings
from crossdiff.core.sparsity import AnySparsity, check_fits
from crossdiff.data.corpus import CorpusSettings
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.data.shards import MaskSettings
from crossdiff.io.environment import conf_dir
from crossdiff.io.resources import LocalDispatch, SlurmDispatch
from crossdiff.io.tracking import LoggerSettings
from crossdiff.models.pair import ModelPair
from crossdiff.organisms.settings import ToySettings
from crossdiff.settings import Settings
from crossdiff.stages.documents import DocumentsSettings
from crossdiff.stages.study import Study
from crossdiff.taxonomy.scheme import TaxonomySettings
from crossdiff.training.settings import TrainingSettings

Action = Literal[
    "run",
    "train",
    "plan",
    "status",
    "cancel",
    "retry",
    "compare",
    "studies",
    "validate",
    "render",
    "export",
    "taxonomy",
]


NEEDS_NO_PAIR = ("compare", "studies")
"""Actions on what lies in results folders, whatever it was made from."""


class Comparison(Settings):
    """Two pairs that share their base; the reference pair's tuned model gives the chat template."""

    reference: ModelPair
    treatment: ModelPair
    seed_null: str | None = None
    """Results of a finished `experiment=seed_null`: changes are also held against those of another seed."""


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
    source: CacheSource | LiveSource
    logger: LoggerSettings
    dispatch: LocalDispatch | SlurmDispatch
    study: SerializeAsAny[Study] | None = None
    name: str | None = None
    seed: int = Field(default=0, ge=0)
    draws: int = Field(default=5000, ge=100)
    device: str = "auto"
    store: Path = Path("store")
    results_dir: Path | None = None
    progress: bool = True
    action: Action = "run"
    plan: bool = False
    export: ExportSettings = ExportSettings()
    validate_: ValidateSettings = Field(default=ValidateSettings(), alias="validate")
    freeze: FreezeSettings = FreezeSettings()
    compare: CompareRuns = CompareRuns()

    @model_validator(mode="after")
    def _can_be_asked(self) -> Experiment:
        if self.action in NEEDS_NO_PAIR:
            return self
        if (self.model_pair is None) == (self.comparison is None):
            given = "neither" if self.model_pair is None else "both"
            raise ValueError(
                f"{given} of model_pair and comparison given; choose one: model_pair=pt_simpo layer=20, "
                "comparison=it_vs_simpo layer=20, or experiment=demo to see it all on a toy (a preset's own "
                "comparison is taken out with ~comparison)"
            )
        check_fits(self.sparsity, n_latents=self.dictionary.n_latents)
        if self.dictionary.architecture == "diff_sae" and self.action == "run" and not self.plan:
            raise ValueError(
                "dictionary.architecture=diff_sae has one direction per latent, so none can belong to one "
                "model only and there is nothing to report; give action=train (the crosscoder alone), or "
                "another architecture"
            )
        return self

    @property
    def pairs(self) -> tuple[ModelPair, ...]:
        """The model pairs in question: one, or the reference and the treatment."""
        if self.comparison is not None:
            return (self.comparison.reference, self.comparison.treatment)
        assert self.model_pair is not None
        return (self.model_pair,)

    @property
    def title(self) -> str:
        """Name of the run: the experiment's, else the comparison's or the pair's."""
        return self.name or "_vs_".join(pair.name for pair in self.pairs)

    @property
    def results(self) -> Path:
        """Folder of the finished products."""
        return self.results_dir or Path("results") / f"{self.title}_{self.layer}"


def load(cfg: DictConfig) -> Experiment:
    """Build the typed experiment; the only call of `instantiate` and the end of every `DictConfig`."""
    if cfg.action in NEEDS_NO_PAIR and OmegaConf.is_missing(cfg, "layer"):
        cfg.layer = 0
    return instantiate(cfg, _convert_="all")


def study_presets() -> list[tuple[str, str, Experiment]]:
    """(study, size, experiment) of every `conf/experiment/<study>.yaml` that asks for a study."""
    folder = conf_dir()
    sizes = ("ci", "toy", "paper")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(folder), version_base="1.3"):
        found = []
        for name in sorted(path.stem for path in (folder / "experiment").glob("*.yaml")):
            if compose("config", overrides=[f"experiment={name}"]).study is None:
                continue
            for size in sizes:
                found.append((name, size, load(compose("config", [f"experiment={name}", f"size={size}"]))))
    return found


def runs_alone(hydra: Any) -> bool:
    """True inside a job of a launcher that is not Hydra's own in-process one (submitit, joblib).

    Everything else is planned together: a single run, or all grid points of a sweep.
    """
    sweeping = hydra.mode == RunMode.MULTIRUN
    return sweeping and not hydra.launcher["_target_"].endswith("BasicLauncher")


def compose_once() -> None:
    """Keep Hydra's sweeper from composing every grid point twice: our own loop reports the same errors.

    The method of the base class is replaced, and the launcher told by its name, because Hydra imports its
    own plugins a second time under the same names.
    """
    validate = Sweeper.validate_batch_is_legal

    def only_for_other_launchers(self: Any, batch: Any) -> None:
        if type(self.launcher).__name__ != "BasicLauncher":
            validate(self, batch)

    Sweeper.validate_batch_is_legal = only_for_other_launchers


def explain(error: BaseException) -> str | None:
    """The message for a configuration error: what was given, the rule, the near options; else None."""
    cause = _root(error)
    match cause:
        case ValidationError():
            return "\n       ".join(_one_problem(problem) for problem in cause.errors())
        case MissingConfigException() if cause.options:
            group, _, option = (cause.missing_cfg_file or "").rpartition("/")
            return f"{group}={option} is no option of {group!r}; {_choices(option, list(cause.options))}"
        case MissingMandatoryValue():
            return f"{cause.full_key} has no value; give {cause.full_key}=..."
        case ConfigCompositionException() | OmegaConfBaseException():
            return _unknown_key(cause)
        case HydraException() if not isinstance(cause, InstantiationException):
            return str(cause)
        case ImportError() if str(error).startswith("Error locating target"):
            path = " ".join(str(cause).split())
            return f"{path}; a class of your own lies beside run.py, or on PYTHONPATH"
        case ValueError() if isinstance(error, InstantiationException):
            return str(cause)
        case ValueError() if "Config group override must be a string or a list" in str(cause):
            return "a group has no option null; take out what a preset chose with ~<group>, as in ~comparison"
    return None


def _root(error: BaseException) -> BaseException:
    """The exception under Hydra's wrappers."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _one_problem(problem: Any) -> str:
    where = ".".join(str(part) for part in problem["loc"]) or "settings"
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] == "extra_forbidden":
        return f"{where} is no setting; remove it (python run.py --help lists the groups)"
    return f"{where}={problem['input']!r}: {problem['msg']}"


def _unknown_key(error: BaseException) -> str:
    texts = [str(error), str(error.__cause__ or "")]
    found = re.search(r"Could not override '([^']+)'|Key '([^']+)' is not in struct", "\n".join(texts))
    if found is None:
        return "; ".join(text.strip() for text in texts if text.strip())
    key = found.group(1) or found.group(2)
    return f"{key} is no setting; {_choices(key, _all_keys())}"


def _choices(given: str, options: list[str]) -> str:
    near = difflib.get_close_matches(given, options, n=4, cutoff=0.5)
    if near:
        return f"did you mean {', '.join(near)}?"
    return f"choose from {', '.join(sorted(options)[:40])}"


def _all_keys() -> list[str]:
    folder = conf_dir()
    groups = [path.name for path in folder.iterdir() if path.is_dir() and path.name != "hydra"]
    keys = [key for key in OmegaConf.load(folder / "config.yaml") if key not in ("defaults", "hydra")]
    nested = [
        f"{path.parent.name}.{key}"
        for path in folder.glob("*/*.yaml")
        for key in OmegaConf.load(path)  # type: ignore[union-attr]
        if path.parent.name in groups and not str(key).startswith("_")
    ]
    return sorted({*groups, *map(str, keys), *nested})
