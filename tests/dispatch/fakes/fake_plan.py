"""Steps of the fake stages: the shape of a real plan, with inputs that decide how a stage behaves."""

from __future__ import annotations

from pathlib import Path

from crossdiff.command_settings import SlurmDispatch
from crossdiff.data.settings import CacheSource, LiveSource
from crossdiff.dispatch.loggers import NoTracker, Tracker
from crossdiff.dispatch.remote import Publication
from crossdiff.dispatch.slurm import Submission
from crossdiff.pipeline.steps import Step, merge
from crossdiff.settings import Runtime, Settings

FOLDER = Path(__file__).resolve().parent


class Inputs(Settings):
    text: str
    n_units: int = 1
    seconds: float = 0.0
    fails_while: str | None = None
    layers: tuple[int, ...] = ()


class WithSource(Inputs):
    source: CacheSource | LiveSource


def chain(pair: str, *, layer: int, **train: object) -> list[Step]:
    """tokens, two harvests, train, scale, report; `train` goes into the train step's inputs."""
    tokens = Step("tokens", "toy", Inputs(text="tokens"))
    harvests = {
        f"harvest_{name}": Step("harvest", name, Inputs(text=name, layers=(layer,)), {"tokens": tokens})
        for name in pair.split("_")
    }
    made = Step("train", pair, Inputs(text=f"train {pair} {layer}", **train), {"tokens": tokens, **harvests})  # type: ignore[arg-type]
    scale = Step("scale", pair, Inputs(text=f"scale {pair} {layer}"), {**harvests, "train": made})
    report = Step("report", pair, Inputs(text=f"report {pair} {layer}"), {"scale": scale, "train": made})
    return [tokens, *harvests.values(), made, scale, report]


def submission(
    store: Path, *plans: list[Step], tracker: Tracker | None = None, **dispatch: object
) -> Submission:
    """The plans as one command would submit them; results go beside the store."""
    setup = (f"export PYTHONPATH={FOLDER}:$PYTHONPATH",)
    return Submission(
        merge(plans),
        [
            Publication(
                plan[-1], store.parent / "results" / plan[-1].inputs.text.replace(" ", "_"), tuple(plan)
            )  # type: ignore[attr-defined]
            for plan in plans
        ],
        Runtime(store=store, device="cpu", progress=False),
        SlurmDispatch(setup=setup, cpus=1, memory_gb=0.5, hours=0.5, **dispatch),  # type: ignore[arg-type]
        tracker or NoTracker(),
    )
