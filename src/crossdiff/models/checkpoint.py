"""Reading a model's configuration and weights; what is missing is refused, never drawn at random."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from crossdiff.models.hub import hub
from crossdiff.models.pair import ModelSettings

WAY_OUT = "pass a folder saved with save_pretrained instead of a hub id (and check the name and your access)"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load_config(model: ModelSettings, path: str) -> Any:
    """The model's configuration, with one clear message where it cannot be had."""
    from transformers import AutoConfig

    with _access(model, path):
        config = AutoConfig.from_pretrained(
            path, revision=model.revision, trust_remote_code=model.trust_remote_code
        )
    if config.is_encoder_decoder:
        raise ValueError(
            f"{model.path} is an encoder-decoder model ({config.model_type}); give a decoder-only model"
        )
    return config


def read_checkpoint(
    auto: Any,
    model: ModelSettings,
    path: str,
    *,
    revision: str | None,
    config: Any = None,
    may_lack: Callable[[str], bool] = lambda _name: False,
) -> Any:
    """The model of class `auto` with every weight of its configuration from the checkpoint.

    A weight that is missing there, or of another shape, is refused unless it `may_lack` that one:
    transformers would draw it at random and only warn.
    """
    with quiet(), _access(model, path):
        loaded, info = auto.from_pretrained(
            path,
            config=config,
            revision=revision,
            dtype=DTYPES[model.dtype],
            attn_implementation=model.attention,
            device_map=model.device_map,
            trust_remote_code=model.trust_remote_code,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    _refuse_incomplete(model, info, may_lack)
    return loaded


def _refuse_incomplete(
    model: ModelSettings, info: Mapping[str, Any], may_lack: Callable[[str], bool]
) -> None:
    missing = sorted(name for name in info["missing_keys"] if not may_lack(name))
    other = sorted(name for entry in info["mismatched_keys"] if not may_lack(name := str(entry[0])))
    for names, what in ((missing, "lacks"), (other, "has, in another shape than its config.json says,")):
        if names:
            raise ValueError(
                f"the checkpoint of {model.path} {what} {len(names):,} weights of the model, such as "
                f"{names[0]}; save or download the whole model again"
            )


@contextmanager
def _access(model: ModelSettings, path: str) -> Iterator[None]:
    """One message for what transformers says about a folder or hub model that it cannot load."""
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError

    with hub(f"model {model.path}", way_out=WAY_OUT, remote=not Path(path).is_dir()):
        try:
            yield
        except HFValidationError:
            raise
        except (ImportError, SafetensorError, ValueError) as error:
            raise _message(model, path, error) from error


def _message(model: ModelSettings, path: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()).replace(path, model.path)  # a view's name says nothing to a user
    if "trust_remote_code" in reason:
        return ValueError(
            f"model {model.path} brings Python code of its own, which does not run unless you ask for it: "
            "read it, then set trust_remote_code=true for this model (model_pair.trust_remote_code=true of "
            "model_pair=custom)"
        )
    return ValueError(
        f"model {model.path} cannot be loaded: {reason[:300]}; check its files, that transformers knows its "
        f"architecture, and the settings attention={model.attention} and device_map={model.device_map}"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """No report of the weights that are left out on purpose, and no bar per file."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
