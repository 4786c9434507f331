"""Stage several: one crosscoder over several models, and the calls of every model against every other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from crossdiff.core.exclusive_call import CALLS, SelectionSettings
from crossdiff.io.tables import write_json, write_table
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, needs
from crossdiff.stages.train import TrainInputs, fit_and_save

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.core.latent_table import Scaled

VERSION = 4
TABLE_VERSION = 1


class SeveralInputs(Settings):
    """The training, and the models' names in the order of the parents harvest_base, harvest_tuned_1, ..."""

    train: TrainInputs
    models: tuple[str, ...] = Field(min_length=2)
    selection: SelectionSettings = SelectionSettings()


def run(inputs: SeveralInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write the files of train, `latents.parquet` (a row per latent and model) and `several.json`."""
    import torch

    from crossdiff.core.latent_scaling import ScalingSums, in_dtype
    from crossdiff.core.latent_table import Scaled
    from crossdiff.stages.activations import open_activations, open_crosscoder
    from crossdiff.training.scaling_pass import pass_over

    training = inputs.train
    open_source = partial(open_activations, parents, training.layer, training.mask, device=runtime.device)
    figures = fit_and_save(training, parents, open_source, draft=draft, runtime=runtime)
    activations = open_source()
    crosscoder = open_crosscoder({**parents, "train": draft}, activations).to(runtime.device)
    worker = in_dtype(crosscoder, torch.float32)
    batch_size = training.training.batch_size
    sums = pass_over(
        worker, activations, batch_size=batch_size, device=runtime.device, progress=runtime.progress
    )
    assert isinstance(sums, ScalingSums)  # studies refuse diff_sae
    table = model_table(Scaled.of(worker.decoder, sums), inputs.models, inputs.selection)
    write_table(table, draft / "latents.parquet", version=TABLE_VERSION, kind="latents_by_model")
    fve = dict(zip(inputs.models, sums.fit.explained(), strict=True)) if sums.fit else {}
    record = {
        "version": 1,
        "models": list(inputs.models),
        "n_latents": worker.n_latents,
        "n_alive": int((sums.n_active > 0).sum()),
        "l0": figures["l0"],
        "fve": fve,
        "exclusive": exclusive_counts(table, inputs.models),
        "lacking": shared_by_all_but(table, inputs.models),
    }
    write_json(record, draft / "several.json")
    exclusive = {f"n_exclusive_{name}": counts["all others"] for name, counts in record["exclusive"].items()}
    return {"n_alive": record["n_alive"], "l0": record["l0"], **exclusive}


STAGE = Stage(
    "several",
    version=VERSION,
    run=run,
    reads=("tokens", "harvest"),
    writes="one crosscoder over several models, and the calls of each",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=48),
)


Pairwise = dict[tuple[int, int], list[str]]
"""(model, other) -> the call of `model` against `other` per latent."""


def pairwise_calls(scaled: Scaled, settings: SelectionSettings) -> Pairwise:
    """The pair's call (method.md section 4) for every two models, each with its direction as probe.

    `exclusive` for (m, o): exclusive to m of these two; a latent exclusive to o is not_exclusive for m.
    """
    pairwise: Pairwise = {}
    n_models = len(scaled.norms)
    for base in range(n_models):
        for tuned in range(base + 1, n_models):
            calls = scaled.calls(settings, base, tuned)
            for model, other, side in ((base, tuned, "base"), (tuned, base, "tuned")):
                pairwise[model, other] = [
                    call if owner in (side, None) else "not_exclusive"
                    for call, owner in zip(calls.call, calls.exclusive_to, strict=True)
                ]
    return pairwise


def model_table(scaled: Scaled, names: Sequence[str], settings: SelectionSettings) -> pd.DataFrame:
    """One row per (latent, model): norm, own betas, and ratios and calls against every other model.

    norm_share is the norm over the largest of the latent's norms. `nu_error_<o>`, `nu_reconstruction_<o>` are
    model o's beta over this model's, with this model's direction as the probe; NaN for o itself, as is
    `call_<o>`. `call` is exclusive when it is against **every** other model, not_exclusive when it is against
    any, else undecided.
    """
    import pandas as pd

    calls = pairwise_calls(scaled, settings)
    parts = [_rows(scaled, names, model, calls) for model in range(len(names))]
    return pd.concat(parts).sort_values(["latent", "model_index"], ignore_index=True)


def _rows(scaled: Scaled, names: Sequence[str], model: int, calls: Pairwise) -> pd.DataFrame:
    import pandas as pd

    from crossdiff.core.latent_table import ERROR, RECONSTRUCTION, column

    sums, n_latents = scaled.sums, scaled.sums.n_latents
    documents = sums.documents.counts() if scaled.bounds is not None else None
    columns: dict[str, Any] = {
        "latent": range(n_latents),
        "model": names[model],
        "model_index": model,
        "n_active": column(sums.n_active),
        "n_documents": float("nan") if documents is None else column(documents),
        "norm": column(scaled.norms[model]),
        "norm_share": column(scaled.norms[model] / scaled.norms.amax(dim=0)),
        "beta_error": column(scaled.beta[ERROR, model, model]),
        "beta_reconstruction": column(scaled.beta[RECONSTRUCTION, model, model]),
    }
    others = [other for other in range(len(names)) if other != model]
    for other in range(len(names)):
        for name, target in (("error", ERROR), ("reconstruction", RECONSTRUCTION)):
            ratio = column(scaled.nu[target, model, other]) if other != model else float("nan")
            columns[f"nu_{name}_{names[other]}"] = ratio
        columns[f"call_{names[other]}"] = calls[model, other] if other != model else [None] * n_latents
    frame = pd.DataFrame(columns)
    frame["call"] = [_over_all([calls[model, other][j] for other in others]) for j in range(n_latents)]
    return frame


def _over_all(calls: Sequence[str]) -> str:
    exclusive, not_exclusive, undecided = CALLS
    if all(call == exclusive for call in calls):
        return exclusive
    return not_exclusive if not_exclusive in calls else undecided


def exclusive_counts(table: pd.DataFrame, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Model -> other (or `all others`) -> number of latents exclusive to the model against it."""
    counts: dict[str, dict[str, int]] = {}
    for name in names:
        rows = table[table["model"] == name]
        counts[name] = {o: rows[f"call_{o}"].tolist().count("exclusive") for o in names if o != name}
        counts[name]["all others"] = rows["call"].tolist().count("exclusive")
    return counts


def shared_by_all_but(table: pd.DataFrame, names: Sequence[str]) -> dict[str, int]:
    """Model -> number of latents that this model alone lacks: all others have them exclusively against it."""
    counts = {}
    for lacking in names:
        having = [table[table["model"] == name].set_index("latent") for name in names if name != lacking]
        flags = [(rows[f"call_{lacking}"] == "exclusive") for rows in having]
        counts[lacking] = int(sum(flags).eq(len(flags)).sum())  # type: ignore[union-attr]
    return counts
