"""A harvest in a process of its own: slow enough to be disturbed in the middle, or as a command.

python -m tests.harvest_process STORE MODEL CORPUS [--slowly] [--tokens-only]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from crossdiff.__main__ import guarded
from crossdiff.data.corpus import FilesCorpus, fingerprint
from crossdiff.data.harvest import run
from crossdiff.data.settings import CacheSource
from crossdiff.dispatch.local import run_steps
from crossdiff.models.pair import ModelSettings
from crossdiff.pipeline.steps import Step
from crossdiff.settings import Runtime
from crossdiff.stages import harvest, tokens

SHARD_TOKENS = 300


def pipeline_steps(model: Path, corpus: Path) -> list[Step]:
    """Tokens of one corpus file and the harvest of one model on them, as the planner makes them."""
    settings = ModelSettings(name="m", path=str(model), dtype="float32")
    files = FilesCorpus(paths=(str(corpus),), context=64)
    made = Step(
        "tokens",
        "files",
        tokens.TokensInputs(
            corpus=files, corpus_fingerprint=fingerprint(files), tokenizer=settings, tokenizer_fingerprint="t"
        ),
    )
    inputs = harvest.HarvestInputs(
        model=settings,
        fingerprint="m",
        layers=(1,),
        source=CacheSource(batch_tokens=256, shard_tokens=SHARD_TOKENS),
    )
    return [made, Step("harvest", "m", inputs, {"tokens": made})]


@contextmanager
def slowed() -> Iterator[None]:
    """While open, there is a pause before and after every shard file that is written."""
    plain = run.write_layer

    def slowly(*args: Any) -> str:
        time.sleep(0.1)
        digest = plain(*args)
        time.sleep(0.1)
        return digest

    run.write_layer = slowly
    try:
        yield
    finally:
        run.write_layer = plain


def slow_harvest(inputs: harvest.HarvestInputs, token_folder: Path, draft: Path) -> None:
    """Harvest with pauses into a draft."""
    with slowed():
        harvest.run(inputs, {"tokens": token_folder}, draft, Runtime(progress=False))


def main() -> int:
    """Bring the steps to finished artifacts in STORE, as the command line does."""
    arguments = [Path(text) for text in sys.argv[1:] if not text.startswith("--")]
    store, model, corpus = arguments
    steps = pipeline_steps(model, corpus)
    with slowed() if "--slowly" in sys.argv else nullcontext():
        run_steps(steps[:1] if "--tokens-only" in sys.argv else steps, Runtime(store=store, progress=False))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(main))
