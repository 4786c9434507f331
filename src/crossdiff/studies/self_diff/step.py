"""Stage self_diff: a crosscoder of one model against itself, and its calls (method.md section 6)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field

from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.io.tables import write_json
from crossdiff.settings import Runtime, Settings
from crossdiff.stages import scale
from crossdiff.stages.protocol import Stage, needs
from crossdiff.stages.train import TrainInputs, fit_and_save

VERSION = 4


class SelfDiffInputs(Settings):
    """The crosscoder's training, and the noise of each copy over every component's deviation.

    Both copies start with independent decoder directions, because with equal starts and nearly equal inputs
    the directions would stay equal and the null would test nothing.
    """

    train: TrainInputs
    selection: SelectionSettings = SelectionSettings()
    noise: float = Field(default=0.01, gt=0)

    def training(self) -> TrainInputs:
        """The training with independent starts."""
        dictionary = self.train.dictionary.model_copy(update={"initial_decoders": "independent"})
        return self.train.model_copy(update={"dictionary": dictionary})


def run(inputs: SelfDiffInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Train and scale; write their files, and `self_diff.json` with the figures."""
    import torch

    from crossdiff.core.crosscoder import Crosscoder
    from crossdiff.core.latent_scaling import ScalingSums, in_dtype
    from crossdiff.studies.self_diff.self_pair import open_self_pair
    from crossdiff.training.scaling_pass import pass_over

    training = inputs.training()
    open_source = partial(
        open_self_pair,
        parents,
        layer=training.layer,
        mask=training.mask,
        noise=inputs.noise,
        seed=training.seed,
        device=runtime.device,
    )
    figures = fit_and_save(training, parents, open_source, draft=draft, runtime=runtime)
    crosscoder = in_dtype(Crosscoder.load(draft / "crosscoder").to(runtime.device), torch.float32)
    batch_size = training.training.batch_size
    sums = pass_over(
        crosscoder, open_source(), batch_size=batch_size, device=runtime.device, progress=runtime.progress
    )
    assert isinstance(sums, ScalingSums)  # studies refuse diff_sae
    record = scale.write_scaled(crosscoder, sums, inputs.selection, draft)
    record |= {name: figures[name] for name in ("fve_base", "fve_tuned")}
    record |= {"seed": training.seed, "per_1000_alive": per_1000_alive(record)}
    write_json(record, draft / "self_diff.json")
    return record


def per_1000_alive(record: Mapping[str, Any]) -> float | None:
    """Latents called exclusive to either copy per 1,000 alive ones; None without alive ones."""
    n_exclusive = record["n_exclusive_tuned"] + record["n_exclusive_base"]
    return 1000 * n_exclusive / record["n_alive"] if record["n_alive"] else None


STAGE = Stage(
    "self_diff",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest"),
    writes="a model against itself, and how many latents are called exclusive",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=48),
)
