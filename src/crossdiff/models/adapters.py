"""PEFT adapters: merged into the model they were trained on; those that cannot be merged are refused."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from crossdiff.models.hub import hub

_WAY_OUT = "pass the adapter's folder (with adapter_config.json)"
_PROMPTS = ("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING", "CPT")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "embed_in.weight", "word_embeddings.weight")
_MISSING = "missing adapter keys"
"""What PEFT warns of; it also warns of keys for blocks that are not built here, which is no fault."""


def merge_adapter(causal: Any, adapter: str) -> Any:
    """The causal model with a PEFT adapter merged into its weights; one that does not fit it is refused.

    An adapter that was saved with a longer embedding (added tokens) gets a model whose embedding is as long.
    """
    try:
        from peft import PeftModel
    except ImportError:
        raise ValueError(
            f"adapter={adapter} needs the package peft; install it: pip install 'crossdiff[adapters]'"
        ) from None
    with (
        hub(f"adapter {adapter}", way_out=_WAY_OUT, remote=not Path(adapter).is_dir()),
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


def check_adapter(adapter: str) -> None:
    """Refuse an adapter folder that puts tokens of its own before the text: it changes no weight.

    Adapters of the hub are looked at when they are merged.
    """
    file = Path(adapter).expanduser() / "adapter_config.json"
    if file.is_file():
        _refuse_prompts(adapter, json.loads(file.read_text(encoding="utf-8")).get("peft_type"))


def body_of(causal: Any) -> torch.nn.Module:
    """Embedding and blocks of a causal model, without its head."""
    return getattr(causal, causal.base_model_prefix, causal)


def _refuse_prompts(adapter: str, kind: Any) -> None:
    kind = str(getattr(kind, "value", kind))
    if kind in _PROMPTS:
        raise ValueError(
            f"adapter {adapter} is {kind}: it puts trained tokens before the text and changes no weight, "
            "so it cannot be merged; give an adapter that changes weights, such as LoRA"
        )


def _n_embeddings(adapter: str) -> int | None:
    """Rows of the embedding that is saved inside the adapter; None where it has none."""
    from peft import PeftConfig
    from peft.utils import load_peft_weights

    _refuse_prompts(adapter, PeftConfig.from_pretrained(adapter).peft_type)
    weights = load_peft_weights(adapter, device="cpu")
    return next((len(w) for name, w in weights.items() if name.endswith(_EMBEDDINGS) and w.ndim == 2), None)


@contextmanager
def _refuse_other_adapter(adapter: str) -> Iterator[None]:
    """One message for an adapter that names modules or shapes which the model does not have."""
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
