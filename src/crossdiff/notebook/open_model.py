"""One model of a pair: a folder, a hub id or a loaded transformers model, for activations and for answers.

A loaded model can be saved into a store as a folder, so that the pipeline reads it like any other model.
"""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from crossdiff.data.harvest.job import Harvester, PassCounts
from crossdiff.data.tokens import TokenSet
from crossdiff.models.generate import ChatModel, as_chat_model, whole_model
from crossdiff.models.hooks import body_of, decoder_blocks
from crossdiff.models.load import TruncatedModel, check_device, load_truncated, rotary_rule
from crossdiff.models.pair import Dtype, ModelSettings, check_layers, fingerprint, is_folder
from crossdiff.models.tokenizers import load_model_tokenizer, refuse_beyond


@dataclass(frozen=True)
class OpenModel:
    """A model by its path or as a loaded object; read on first use."""

    settings: ModelSettings
    path: str
    """Argument of `from_pretrained`; for a loaded model the name it was loaded by."""
    layer: int
    device: str
    loaded: Any = None

    @classmethod
    def of(cls, given: Any, *, name: str, layer: int, device: str, dtype: Dtype) -> OpenModel:
        """From a folder, a hub id, settings, or a model; ValueError for anything else."""
        match given:
            case ModelSettings():
                settings, loaded = given, None
            case str() | Path():
                settings, loaded = ModelSettings(name=name, path=str(given), dtype=dtype), None
            case torch.nn.Module() if hasattr(getattr(given, "config", None), "get_text_config"):
                path = str(getattr(given, "name_or_path", "") or f"the loaded {name} model")
                settings, loaded = ModelSettings(name=name, path=path), given
            case _:
                raise ValueError(
                    f"the {name} model is {type(given).__name__}; give a saved folder, a "
                    "hub id, or a loaded transformers model"
                )
        path = settings.path
        if loaded is None and is_folder(path):
            path = str(Path(path).expanduser())
        return cls(settings, path, layer, device, loaded)

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return self.truncated.d_model

    def tokenizer(self) -> Any:
        """The model's tokenizer; for a loaded model, by the name it was loaded by."""
        try:
            return load_model_tokenizer(self.settings, self.path)
        except ValueError as error:
            if self.loaded is None:
                raise
            raise ValueError(f"{self.path} names no tokenizer ({error}); give tokenizer=...") from None

    @cached_property
    def truncated(self) -> TruncatedModel:
        """Blocks up to the layer; a loaded model keeps all blocks, its dtype and its device."""
        if self.loaded is None:
            return load_truncated(self.settings, self.path, layers=[self.layer], device=self.device)
        text = self.loaded.config.get_text_config(decoder=True)
        check_layers(self.settings, [self.layer], text.num_hidden_layers)
        body = body_of(self.loaded)
        return TruncatedModel(
            body=body,
            attention="eager",  # rows hold one document each, so that no kernel has to separate them
            blocks=decoder_blocks(body, text.num_hidden_layers),
            d_model=text.hidden_size,
            vocab_size=self.loaded.get_input_embeddings().weight.shape[0],
            rotary=rotary_rule(text),
        )

    def rows(self, tokens: TokenSet) -> Float[Tensor, "token d_model"]:
        """Output of the layer for every token, float32 on the CPU; one unpadded document at a time."""
        model = self.truncated
        names = [str(token) for token in tokens.ids.tolist()]
        refuse_beyond(tokens.ids, model.vocab_size, names=lambda ids: names[: len(ids)], path=self.path)
        device = self.device if self.loaded is None else str(self.loaded.device)
        harvester = Harvester(
            model=model, layers=[self.layer], batching="bucket", batch_tokens=1, context=tokens.longest,
            device=device,
        )  # fmt: skip
        with evaluating(self.loaded):
            states = harvester.documents(tokens, torch.arange(tokens.n_documents), PassCounts())
        return states[self.layer].float()

    def chat(self, tokenizer: Any) -> ChatModel:
        """The whole model for answers; changed settings are copies."""
        tokenizer = copy.deepcopy(tokenizer)
        if self.loaded is not None:
            return as_chat_model(self.settings.name, copy.copy(self.loaded), tokenizer, self.loaded.device)
        device = check_device(self.device)
        model = whole_model(self.settings, self.path, device=device)
        return as_chat_model(self.settings.name, model, tokenizer, device)


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """While open, a loaded model is in evaluation mode (no dropout); afterwards in the mode it had."""
    if model is None or not model.training:
        yield
        return
    model.eval()
    try:
        yield
    finally:
        model.train()


PLACE = Path("notebook") / "models"
"""Inside a store."""


def found_again(path: str, store: Path) -> str:
    """The path of a model that was saved into a store which has moved since; any other path as it is."""
    folder = Path(path)
    moved = store / PLACE / folder.name
    is_ours = folder.parent.parts[-2:] == PLACE.parts
    return str(moved) if is_ours and not folder.is_dir() and moved.is_dir() else path


def saved(model: Any, store: Path, *, tokenizer: Any, dtype: Dtype | None) -> str:
    """Folder or hub id of a model; a loaded one is saved as `<store>/notebook/models/<hash of its files>`.

    ValueError where a loaded model's name leads to no tokenizer and none is given.
    """
    opened = OpenModel.of(model, name="given", layer=0, device="cpu", dtype=dtype or "bfloat16")
    if opened.loaded is None:
        return opened.settings.path
    tokenizer = tokenizer or opened.tokenizer()
    place = store / PLACE
    place.mkdir(parents=True, exist_ok=True)
    draft = Path(mkdtemp(prefix=".saving-", dir=place))
    try:
        opened.loaded.save_pretrained(draft)
        tokenizer.save_pretrained(draft)
        content = fingerprint(ModelSettings(name="given", path=str(draft)))
        final = place / content.removeprefix("folder:")[:16]
        if not final.is_dir():
            os.chmod(draft, 0o755)  # mkdtemp closes its folder to others; the store is shared
            draft.rename(final)
        return str(final)
    finally:
        shutil.rmtree(draft, ignore_errors=True)
