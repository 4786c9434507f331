"""Reading a model's configuration, weights and adapter; ValueError for missing weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from crossdiff.models.config_file import refuse_prompts
from crossdiff.models.hub import WAY_OUT, hub
from crossdiff.models.pair import ModelSettings

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
_ADAPTER_WAY_OUT = "pass the adapter's folder (with adapter_config.json)"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_MISSING = "missing adapter keys"
"""Text of PEFT's warning about missing keys; its other warnings are about blocks that are not built."""


def load_config(model: ModelSettings, path: str) -> Any:
    """The model's configuration; ValueError where it cannot be read."""
    from transformers import AutoConfig

    with access(model, path):
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
    with quiet(), access(model, path):
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
def access(model: ModelSettings, path: str) -> Iterator[None]:
    """Turn transformers' errors about a folder or hub model into one ValueError."""
    from huggingface_hub.errors import HFValidationError
    from safetensors import SafetensorError

    with hub(f"model {model.path}", way_out=WAY_OUT, remote=not Path(path).is_dir()):
        try:
            yield
        except HFValidationError:
            raise
        except torch.OutOfMemoryError:
            raise
        except (ImportError, SafetensorError, ValueError, UnpicklingError, EOFError, *_OF_SETTINGS) as error:
            if isinstance(error, RuntimeError) and "memory" in str(error):
                raise
            raise _message(model, path, error) from error


_OF_SETTINGS = (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError)
"""Exceptions of transformers for unknown values of config.json or an index."""


def _message(model: ModelSettings, path: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()).replace(path, model.path)  # `path` may be a temporary view
    if isinstance(error, _OF_SETTINGS):
        reason = f"{type(error).__name__} {reason}"
    if "trust_remote_code" in reason:
        return ValueError(
            f"model {model.path} has Python code of its own, which does not run unless you allow it: "
            "read it, then set trust_remote_code=true for this model (model_pair.trust_remote_code=true of "
            "model_pair=custom)"
        )
    return ValueError(
        f"model {model.path} cannot be loaded: {reason[:300]}; check its files, that transformers knows its "
        f"architecture, and the settings attention={model.attention} and device_map={model.device_map}"
    )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers' report of weights that are left out, and its progress bars."""
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


def merge_adapter(causal: Any, adapter: str) -> Any:
    """The causal model with a PEFT adapter merged; ValueError where the adapter does not fit.

    The model's embedding is resized to that of an adapter saved with added tokens.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError(
            f"adapter={adapter} needs the package peft; install it: pip install 'crossdiff[adapters]'"
        ) from None
    with (
        hub(f"adapter {adapter}", way_out=_ADAPTER_WAY_OUT, remote=not Path(adapter).is_dir()),
        warnings.catch_warnings(record=True) as warned,
        _refuse_other_adapter(adapter),
    ):
        n_embeddings = _n_embeddings(adapter)
        if n_embeddings is not None and n_embeddings != causal.get_input_embeddings().num_embeddings:
            causal.resize_token_embeddings(n_embeddings, mean_resizing=False)
        adapted = PeftModel.from_pretrained(causal, adapter)
    missing = [str(warning.message) for warning in warned if _MISSING in str(warning.message)]
    if missing:
        raise ValueError(f"adapter {adapter} is not whole: {missing[0][:300]}; save or download it again")
    return adapted.merge_and_unload()


def _n_embeddings(adapter: str) -> int | None:
    """Rows of the adapter's embedding; None without one."""
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    refuse_prompts(adapter, PeftConfig.from_pretrained(adapter).peft_type)
    weights = load_peft_weights(adapter, device="cpu")
    return next((len(w) for name, w in weights.items() if name.endswith(_EMBEDDINGS) and w.ndim == 2), None)


@contextmanager
def _refuse_other_adapter(adapter: str) -> Iterator[None]:
    """Turn errors about an adapter with other modules or shapes into one ValueError."""
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (SafetensorError, ValueError, RuntimeError, TypeError, KeyError) as error:
        if "cannot be merged" in str(error):
            raise
        raise ValueError(
            f"adapter {adapter} does not fit the model: {' '.join(str(error).split())[:300]}; give the model "
            "that it was trained on as this model's path"
        ) from error
