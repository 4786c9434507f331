"""Stage planted: several kinds of crosscoders on planted activations, and scores of their calls."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.sparsity import L1, AnySparsity, BatchTopK, JumpReLU, Sparsity, TopK, within
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.studies.planted.settings import PlantedSettings
from crossdiff.training.settings import TrainingSettings

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.studies.planted.world import Planted, PlantedSource

VERSION = 4


class Contender(Settings):
    """One kind of crosscoder in the study; `loss_mix` below 0 is the mixed squared loss."""

    name: str
    dictionary: DictionarySettings
    sparsity: AnySparsity
    loss_mix: float = Field(default=0.0, ge=-1, le=0)

    ADDED: ClassVar[frozenset[str]] = frozenset({"loss_mix"})

    def training(self, asked: TrainingSettings) -> TrainingSettings:
        """The study's training with this kind's loss."""
        if self.dictionary.architecture == "delta":
            return asked.model_copy(update={"loss": "squared"})
        if not self.loss_mix:
            return asked
        return asked.model_copy(update={"loss": "squared", "loss_mix": self.loss_mix})


def contenders(*, n_latents: int = 512, k: int = 6) -> tuple[Contender, ...]:
    """L1, TopK, BatchTopK, designated-shared, dedicated-feature and JumpReLU at one size."""
    anneal = {"k": k, "k_initial": 4 * k, "anneal_steps": 500}
    batch_topk, plain = BatchTopK(**anneal), DictionarySettings(n_latents=n_latents)
    small = DictionarySettings(n_latents=n_latents, initial_norm=0.1)
    shared = DictionarySettings(n_latents=n_latents, architecture="designated_shared")
    dedicated = DictionarySettings(n_latents=n_latents, architecture="dedicated", dedicated_share=0.1)
    made: tuple[tuple[str, DictionarySettings, Sparsity], ...] = (
        ("l1", small, L1(penalty=0.1, warmup_steps=500)),
        ("topk", plain, TopK(**anneal)),
        ("batch_topk", plain, batch_topk),
        ("designated_shared", shared, batch_topk),
        ("dedicated", dedicated, batch_topk),
        ("jumprelu", plain, JumpReLU(penalty=0.1, warmup_steps=500)),
    )
    return tuple(Contender(name=name, dictionary=d, sparsity=s) for name, d, s in made)


def newer_contenders(*, n_latents: int = 512, k: int = 6) -> tuple[Contender, ...]:
    """Later kinds, in their own step, so that the step of `contenders` keeps its key."""
    feature = DictionarySettings(n_latents=n_latents, architecture="dedicated_feature", dedicated_share=0.1)
    annealed = BatchTopK(k=k, k_initial=4 * k, anneal_steps=500)
    plain = DictionarySettings(n_latents=n_latents)
    return (
        Contender(name="dedicated_feature", dictionary=feature, sparsity=annealed),
        Contender(name="mixed_loss", dictionary=plain, sparsity=annealed, loss_mix=-0.5),
    )


def latest_contenders(*, n_latents: int = 512, k: int = 6) -> tuple[Contender, ...]:
    """The Delta-Crosscoder with its squared loss, in its own step for the same reason."""
    delta = DictionarySettings(n_latents=n_latents, architecture="delta")
    annealed = BatchTopK(k=k, k_initial=4 * k, anneal_steps=500)
    return (Contender(name="delta", dictionary=delta, sparsity=annealed),)


def difference_contenders(*, n_latents: int = 512, k: int = 6) -> tuple[Contender, ...]:
    """The dictionary on the difference of the models, which makes no call (experiment=contenders alone)."""
    differs = DictionarySettings(n_latents=n_latents, architecture="diff_sae")
    return (
        Contender(
            name="diff_sae", dictionary=differs, sparsity=BatchTopK(k=k, k_initial=4 * k, anneal_steps=500)
        ),
    )


class PlantedInputs(Settings):
    """Contenders and planted activations; `seed` draws both truth and training."""

    planted: PlantedSettings = PlantedSettings()
    contenders: tuple[Contender, ...] = Field(default_factory=contenders)
    training: TrainingSettings = TrainingSettings(
        n_steps=3000, learning_rate=1e-3, warmup_steps=100, dead_after_tokens=100_000
    )
    selection: SelectionSettings = SelectionSettings()
    n_documents: int = Field(default=6000, ge=40)
    n_scaling_documents: int = Field(default=3000, ge=40)
    seed: int = 0


def run(inputs: PlantedInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write a crosscoder, its latent table and its scores per contender, and `planted.csv` with all scores.

    A killed run continues with its unfinished contender.
    """
    import pandas as pd

    from crossdiff.io.tables import read_json, write_json
    from crossdiff.studies.planted.world import Planted, PlantedSource

    source: PlantedSource | None = None
    rows = []
    for contender in inputs.contenders:
        folder = draft / contender.name
        folder.mkdir(exist_ok=True)
        if not (folder / "scores.json").is_file():
            source = source or PlantedSource(
                Planted(inputs.planted, inputs.seed), n_documents=inputs.n_documents
            )
            write_json(one(inputs, contender, source, folder=folder, runtime=runtime), folder / "scores.json")
        rows.append({"contender": contender.name, "seed": inputs.seed, **read_json(folder / "scores.json")})
    pd.DataFrame(rows).to_csv(draft / "planted.csv", index=False)
    return {f"{row['contender']}_f1": row.get("scaling_f1_all") for row in rows}


def one(
    inputs: PlantedInputs, contender: Contender, source: PlantedSource, *, folder: Path, runtime: Runtime
) -> dict[str, Any]:
    """Train, scale and score one crosscoder."""
    from crossdiff.core.diagnostics import shrinkage_and_decoupling
    from crossdiff.io.tables import write_table
    from crossdiff.studies.planted.score import score, score_difference
    from crossdiff.training.run import RunFolder, TrainingRun, fit

    training_run = TrainingRun(
        dictionary=contender.dictionary,
        sparsity=within(contender.sparsity, inputs.training.total_steps()),
        training=contender.training(inputs.training),
        seed=inputs.seed,
        device=runtime.device,
        progress=runtime.progress,
    )
    crosscoder, figures = fit(training_run, source, RunFolder(folder))
    crosscoder.save(folder / "crosscoder")
    shutil.rmtree(RunFolder(folder).checkpoint.parent, ignore_errors=True)
    table = scaled(crosscoder, source.planted, inputs)
    write_table(table, folder / "latents.parquet", version=1, kind="latents")
    if contender.dictionary.architecture == "diff_sae":
        names = ("fve_difference", "l0", "dead_share", "train_seconds")
        return {**{n: figures[n] for n in names}, **score_difference(table, crosscoder, source.planted)}
    kept = {name: figures[name] for name in ("fve_base", "fve_tuned", "l0", "dead_share", "train_seconds")}
    counts = shrinkage_and_decoupling(table, inputs.selection)
    of_tuned = {name: counts[name]["tuned"] for name in ("shrinkage", "decoupling", "by_norm")}
    return {**kept, **of_tuned, **score(table, crosscoder, source.planted)}


def scaled(crosscoder: Crosscoder, planted: Planted, inputs: PlantedInputs) -> pd.DataFrame:
    """The latent table on documents outside the training."""
    import torch

    from crossdiff.core.difference_table import difference_table
    from crossdiff.core.latent_table import latent_scaling

    fresh = planted.batches(first=inputs.n_documents, n_documents=inputs.n_scaling_documents)
    batches = ((batch.x, batch.document) for batch in fresh)
    if crosscoder.settings.architecture == "diff_sae":
        return difference_table(crosscoder, batches, selection=inputs.selection)
    return latent_scaling(crosscoder, batches, dtype=torch.float32, selection=inputs.selection)


STAGE = Stage(
    "planted",
    version=VERSION,
    run=run,
    reads=(),
    writes="crosscoders of several kinds on planted activations, and what they recover",
    resources=needs(gpus=1, cpus=4, memory_gb=16, hours=8),
)
