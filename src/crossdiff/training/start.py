"""Training that goes on from a crosscoder."""

from __future__ import annotations

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import JumpReLU, Sparsity
from crossdiff.io.crosscoders.read import read_crosscoder


def read_start(
    path: str, dictionary: DictionarySettings, sparsity: Sparsity, *, n_models: int, d_model: int
) -> Crosscoder:
    """The crosscoder at `path`, which must be of this shape and kind; ValueError says what to set."""
    found = read_crosscoder(path)
    if (found.n_models, found.d_model) != (n_models, d_model):
        raise ValueError(
            f"training.start={path} reads {found.n_models} models of width {found.d_model}, these are "
            f"{n_models} of width {d_model}; give a crosscoder of such models"
        )
    same = ["n_latents", "code_norm", "architecture"]
    same += {"dedicated_feature": ["dedicated_share"], "delta": ["delta_share"]}.get(
        dictionary.architecture, []
    )
    for name in same:
        theirs, ours = getattr(found.settings, name), getattr(dictionary, name)
        if theirs != ours:
            raise ValueError(
                f"training.start={path} has {name}={theirs}, the run asks for {ours}; "
                f"give dictionary.{name}={theirs}"
            )
    if dictionary.architecture in ("diff_sae", "designated_shared", "dedicated"):
        raise ValueError(
            f"training.start cannot go on with architecture={dictionary.architecture}: a diff_sae is no "
            "crosscoder, and directions that two models share would differ after rescaling; leave it out"
        )
    if found.log_gate is not None and not isinstance(sparsity, JumpReLU):
        raise ValueError(f"training.start={path} has JumpReLU gates; give sparsity=jumprelu")
    if found.log_gate is None and isinstance(sparsity, JumpReLU):
        found.add_gate_(sparsity.initial_gate)
    return found
