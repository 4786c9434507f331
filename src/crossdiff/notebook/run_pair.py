"""The models, layer, crosscoder and labels of one pair of a run, ready to be asked with texts."""

from __future__ import annotations

from collections.abc import MutableMapping
from typing import TYPE_CHECKING

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.data.corpus import DEFAULT_CONTEXT
from crossdiff.data.settings import MaskSettings
from crossdiff.data.tokens import TokenSet
from crossdiff.io.environment import choose_device
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.notebook.finished_steps import FinishedSteps
from crossdiff.notebook.open_model import OpenModel
from crossdiff.notebook.pair import OpenPair
from crossdiff.notebook.saved_models import found_again

if TYPE_CHECKING:
    import pandas as pd


def open_pair_of(
    steps: FinishedSteps,
    pair: str,
    in_use: MutableMapping[tuple, OpenModel],
    *,
    labels: pd.DataFrame,
    device: str,
) -> OpenPair:
    """`Run.open_pair`: models as the harvests read them, texts tokenised and masked as the corpus was.

    A model that is `in_use` is not loaded again.
    """
    chosen, train = choose_device(device), steps.roles[f"train_{pair}"]
    inputs = steps.inputs_of(train)
    models = []
    for name in ("base", "tuned"):
        asked = (*_harvested(steps, pair, name), inputs["layer"], chosen)
        models.append(in_use.setdefault(asked, OpenModel(*asked)))
    base, tuned = models
    corpus = steps.inputs("tokens").get("corpus") or {}
    tokens = TokenSet.open(steps.roles["tokens"])
    return OpenPair(
        base,
        tuned,
        Crosscoder.load(train / "crosscoder").to(chosen),
        tuned.tokenizer() if "ids" in tokens.unknown else tokens.tokenizer,
        mask=MaskSettings(**inputs.get("mask", {})),
        context=corpus.get("context", DEFAULT_CONTEXT),
        labels=labels,
    ).checked()


def _harvested(steps: FinishedSteps, pair: str, name: str) -> tuple[ModelSettings, str]:
    """Settings of a harvested model, and what `from_pretrained` is given: a blend lies in the store."""
    harvest = steps.parent(steps.roles[f"train_{pair}"], f"harvest_{name}")
    if harvest is None:
        raise ValueError(
            f"the store {steps.store} has lost the harvest that says which {name} model {pair} was trained "
            "on; open_pair(base, tuned, layer, crosscoder) takes the models by hand"
        )
    settings = ModelSettings.model_validate(steps.inputs_of(harvest)["model"])
    blend = steps.parent(harvest, "model")
    if blend is not None:
        return settings, str(blend / "model")
    settings = settings.model_copy(update={"path": found_again(settings.path, steps.store)})
    return settings, resolve(settings, steps.parent(harvest, "organism"))
