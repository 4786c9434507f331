"""Settings that decide no result: what an action writes, where steps run, which logger records them.

One block per action with settings (`action=export export.what=...`), and the groups `dispatch` and `logger`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, ConfigDict, Field, model_validator

from crossdiff.settings import Settings
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Resources

ExportFormat = Literal[
    "png",
    "svg",
    "csv",
    "tex",
    "jsonl",
    "dictionary_learning",
    "crossdiff",
    "saelens",
    "neelnanda",
    "jsonl.gz",
]

FORMATS: dict[str, tuple[ExportFormat, ...]] = {
    "figures": ("svg", "png"),
    "tables": ("csv", "tex"),
    "annotations": ("jsonl", "csv"),
    "checkpoint": ("dictionary_learning", "crossdiff", "saelens", "neelnanda"),
    "neuronpedia": ("jsonl.gz",),
}
"""What can be exported -> its formats, the default first."""


class ExportSettings(Settings):
    """What `action=export` writes.

    format: one of `FORMATS[what]`, the first unless given.
    hub_id: also upload the crosscoder to this (private) Hugging Face repository, for `Crosscoder.load`.
    """

    what: Literal["figures", "tables", "annotations", "checkpoint", "neuronpedia"] = "figures"
    format: ExportFormat | None = None
    folder: Path = Path("export")
    hub_id: str | None = None

    @model_validator(mode="after")
    def _fits(self) -> ExportSettings:
        formats = FORMATS[self.what]
        if self.format is not None and self.format not in formats:
            raise ValueError(
                f"export.what={self.what} cannot be written as export.format={self.format}; "
                f"choose {' or '.join(formats)}"
            )
        if self.hub_id is not None and self.chosen_format != "crossdiff":
            raise ValueError(
                f"export.hub_id uploads our own format, not {self.what} as {self.chosen_format}; "
                "use export.what=checkpoint export.format=crossdiff"
            )
        return self

    @property
    def chosen_format(self) -> ExportFormat:
        """The format asked for, or the default of what is exported."""
        return self.format or FORMATS[self.what][0]


class AskSettings(Settings):
    """Texts that `action=ask` encodes with a finished run, and what it prints.

    text: one text. file: many (.jsonl with text or messages; .txt with one text per line).
    n: latents per text, by falling scaled code. pair: one pair; None takes all of the command.
    exclusive_to: latents of one model only. out: write JSON lines there instead of printing.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)

    text: str | None = None
    file: Path | None = None
    n: int = Field(default=8, ge=1)
    pair: str | None = None
    exclusive_to: Literal["base", "tuned"] | None = None
    out: Path | None = None


class ValidateSettings(Settings):
    """The human check: `mode=export` writes a blind rating sheet, `mode=import` reads it back.

    n: items on the sheet, balanced over categories.
    unit: an item shows one document, or the documents of one latent.
    file: the filled sheet, or a list with one sheet per rater.
    """

    mode: Literal["export", "import"] = "export"
    n: int = Field(default=100, ge=1)
    unit: Literal["document", "latent"] = "document"
    file: Path | tuple[Path, ...] | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """The filled sheets, one per rater."""
        match self.file:
            case None:
                return ()
            case Path():
                return (self.file,)
            case _:
                return self.file


class FreezeSettings(Settings):
    """`action=taxonomy`: show a run's taxonomy, induce one, or extend it from latents labelled `other`.

    file: where an induced or extended taxonomy is written; use it with taxonomy=file taxonomy.path=<file>.
    n_new: the most categories that an extension adds.
    """

    mode: Literal["show", "induce", "extend"] = "show"
    file: Path = Path("taxonomy.yaml")
    n_new: int = Field(default=8, ge=1)


class CompareRuns(Settings):
    """Results folders (a glob) that `action=compare` shows side by side on one page.

    `wandb` also saves a report or a workspace of the same figures in the project of `logger=wandb`; that
    needs an account.
    """

    runs: str = "results/*"
    page: Path = Path("results/runs.html")
    wandb: Literal["report", "workspace"] | None = None


def _of_stages(given: dict[str, Resources]) -> dict[str, Resources]:
    """Refuse unknown stages."""
    for name in given:
        if name not in protocol.names():
            raise ValueError(f"{name} is no stage; stages are {', '.join(protocol.names())}")
    return given


StageResources = Annotated[dict[str, Resources], AfterValidator(_of_stages)]
"""Resources of single stages, by name."""


class LocalDispatch(Settings):
    """Steps run on this machine, up to `processes` independent ones at a time.

    Each process has its share of the CPU's threads and, with several accelerators, one of its own.
    `harvest_workers` above 1 lets that many processes take the shards of a harvest, one accelerator each
    where there are several. `devices` above 1 shares the passes of scaling, documents and
    matching over so many devices.
    """

    harvest_workers: int = Field(default=1, ge=1)
    processes: int = Field(default=1, ge=1)
    devices: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _one_way_of_sharing(self) -> LocalDispatch:
        if self.processes > 1 and self.devices > 1:
            raise ValueError(
                f"dispatch.processes={self.processes} gives every step one accelerator, dispatch.devices="
                f"{self.devices} gives a scaling, documents and matching several; give one of them"
            )
        return self


class SlurmDispatch(Resources):
    """Steps become SLURM jobs that wait for one another.

    `profile` names `slurm/<profile>.yaml` or is the path of such a file. Resources given here hold for
    every stage, those in `stages` for one. `signal_seconds` before the time limit a job saves its work
    and goes back into the queue, at most `max_timeouts` times. `harvest_tasks` above 1 makes a harvest a job
    array over its shards and a job that puts them together. `devices` shares a scaling over as many GPUs:
    those of one node (`dispatch.stages.scale.gpus`), or of several (`dispatch.stages.scale.nodes`, and of a
    training `dispatch.stages.train.nodes`); documents and matching over those that their jobs
    have. `wait` follows the jobs with a table.
    """

    profile: str | None = None
    stages: StageResources = Field(default_factory=dict)
    signal_seconds: int = Field(default=120, ge=10)
    max_timeouts: int = Field(default=1000, ge=0)
    harvest_tasks: int = Field(default=1, ge=1)
    devices: int = Field(default=1, ge=1)
    wait: bool = False
    poll_seconds: float = Field(default=5.0, gt=0)


class CsvLogger(Settings):
    """Writes `steps.csv` and `metrics.<pair>.csv` into the results folder; nothing leaves the machine."""


class NoLogger(Settings):
    """Records nothing besides the artifacts."""


class WandbLogger(Settings):
    """One Weights & Biases run per finished step.

    `group` defaults to the title of the comparison or sweep. `mode` None follows `WANDB_MODE` and,
    without a login, records offline. The API key comes from the environment and is no setting.
    """

    project: str = "crossdiff"
    entity: str | None = None
    group: str | None = None
    mode: Literal["online", "offline"] | None = None
    folder: Path | None = None
    tags: tuple[str, ...] = ()
    timeout_seconds: float = Field(default=120.0, gt=0)


LoggerSettings = CsvLogger | WandbLogger | NoLogger
