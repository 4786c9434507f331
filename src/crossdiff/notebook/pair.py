"""A pair of models with a crosscoder: activations, latents and steered answers for texts."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from crossdiff.core.codes import check_latent
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.decoder_norms import has_one_space, raw_directions
from crossdiff.data.corpus import DEFAULT_CONTEXT
from crossdiff.data.settings import MaskSettings
from crossdiff.io.crosscoders.read import read_crosscoder
from crossdiff.io.environment import choose_device
from crossdiff.models.generate import ChatModel, Steering, answers, block_of
from crossdiff.models.hooks import Push
from crossdiff.models.pair import Dtype
from crossdiff.models.tokenizers import refuse_other_tokenizer
from crossdiff.notebook.encoded import MODELS, Encoded
from crossdiff.notebook.open_model import OpenModel, evaluating
from crossdiff.notebook.texts import Text, TokenisedTexts, tokenised
from crossdiff.stages.import_crosscoder import check_layer

if TYPE_CHECKING:
    import pandas as pd
    from jaxtyping import Float
    from torch import Tensor

FEWEST_TOKENS = 8
"""Fewest tokens for a comparison of FVE and L0 with those of the training."""
LARGEST_L0_RATIO = 3.0


def open_pair(
    base: Any,
    tuned: Any,
    layer: int,
    crosscoder: Crosscoder | str | Path,
    *,
    tokenizer: Any = None,
    dtype: Dtype = "bfloat16",
    device: str = "auto",
    context: int = DEFAULT_CONTEXT,
    scale: Sequence[float] | None = None,
) -> OpenPair:
    """Two models and a crosscoder that was trained on the output of block `layer` of both.

    base, tuned  folder saved with save_pretrained, hub id, or a loaded transformers model
    crosscoder   a `Crosscoder`, or the file, folder or hub id of one in any format that can be read
    scale        factors on the activations of base and tuned, where a crosscoder's file holds none
    tokenizer    of both models; the tuned model's unless given (its chat template is used)
    dtype        of models that are read here; take that of the training. Loaded models keep their own
    context      tokens at which texts are cut

    ValueError where the crosscoder does not fit the models (number of models, width, layer).
    """
    chosen = choose_device(device)
    if isinstance(crosscoder, Crosscoder) and scale is not None:
        raise ValueError("a Crosscoder holds its scale already; leave scale out")
    found = crosscoder if isinstance(crosscoder, Crosscoder) else read_crosscoder(crosscoder, scale=scale)
    check_layer("the crosscoder" if found is crosscoder else str(crosscoder), layer, found.metadata)
    first, second = (
        OpenModel.of(given, name=name, layer=layer, device=chosen, dtype=dtype)
        for name, given in zip(MODELS, (base, tuned), strict=True)
    )
    if found is not crosscoder:
        found = found.to(chosen)
    return OpenPair(first, second, found, tokenizer or second.tokenizer(), context=context).checked()


@dataclass(frozen=True)
class OpenPair:
    """A pair with a crosscoder, made by `open_pair` and `run.open_pair`; models are read on first use."""

    base: OpenModel
    tuned: OpenModel
    crosscoder: Crosscoder
    tokenizer: Any
    mask: MaskSettings = field(default_factory=MaskSettings)
    context: int = DEFAULT_CONTEXT
    labels: pd.DataFrame | None = None
    """Latent table of the run, with labels; None without a run."""
    _warned: list[str] = field(default_factory=list, repr=False)

    def __repr__(self) -> str:
        models = f"{self.base.settings.path!r}, {self.tuned.settings.path!r}, layer={self.base.layer}"
        return f"OpenPair({models}, {self.crosscoder.n_latents} latents)"

    def checked(self) -> OpenPair:
        """This pair; ValueError where the crosscoder or the tokenizers do not fit the models."""
        crosscoder, wanted = self.crosscoder, len(MODELS)
        if not has_one_space(crosscoder):
            raise ValueError(
                "this crosscoder is of two families (alignment=characters), whose models read other tokens; "
                "the tables of its run are in open_run(...), and texts cannot be read with both models yet"
            )
        if crosscoder.settings.architecture == "diff_sae":
            wanted = 1
        if crosscoder.n_models != wanted:
            raise ValueError(f"the crosscoder has {crosscoder.n_models} models, a pair has 2")
        for model in (self.base, self.tuned):
            if model.d_model != crosscoder.d_model:
                raise ValueError(
                    f"the crosscoder has width {crosscoder.d_model} and {model.settings.path} has "
                    f"{model.d_model}; give the models that it was trained on"
                )
        if self.base.loaded is None and self.tuned.loaded is None:
            refuse_other_tokenizer(
                self.tokenizer, self.base.tokenizer(), reference_name="the pair", other_name="base"
            )
        return self

    def activations(self, texts: Text | Sequence[Text]) -> Float[Tensor, "token model d_model"]:
        """Raw activations of all tokens of all texts, one text after the other, float32 on the CPU.

        The rows are those of `encode(texts).tokens`. A chat is a list of messages; a plain text is
        read as it is, behind BOS where the tokenizer has one. ValueError for no text or an empty one.
        """
        return self._rows(self._tokenised(texts))

    def encode(self, texts: Text | Sequence[Text], *, threshold: float | None = None) -> Encoded:
        """Codes of all latents on the texts, with both models' figures; see `Encoded`.

        Warns, with FVE and L0, where these texts are reconstructed much worse than the training's: the
        models, the layer or the texts are then not those of the training.
        """
        tokens = self._tokenised(texts)
        found = Encoded.of(
            tokens, self.crosscoder, self._rows(tokens), threshold=threshold, labels=self.labels
        )
        self._compare_with_training(found)
        return found

    def top_latents(
        self, text: Text | Sequence[Text], n: int = 10, *, exclusive_to: str | None = None
    ) -> pd.DataFrame:
        """The `n` latents with the highest codes on a text: `encode(text).top(n)`."""
        return self.encode(text).top(n, exclusive_to=exclusive_to)

    def generate(
        self,
        prompt: str | Sequence[str],
        *,
        steer: Mapping[int, float] | None = None,
        model: str = "tuned",
        n_new_tokens: int = 64,
        seed: int = 0,
    ) -> Any:
        """A sampled answer of one model (temperature 1); of several prompts a list.

        The prompt is a user's turn of a chat; without a chat template it is a text to be continued. `steer`
        adds `strength * d_latent` of that model, in raw activation units, to the layer's output at every new
        token: strength 1 equals a code of 1, the latent's peak code its largest output.
        """
        if model not in MODELS:
            raise ValueError(f"model={model!r} is not in the pair; give base or tuned")
        prompts = [prompt] if isinstance(prompt, str) else list(prompt)
        if not prompts or not all(isinstance(text, str) and text for text in prompts):
            raise ValueError("the prompt is empty or no text; give a string or a list of them")
        which = MODELS.index(model)
        opened, pushed = (self.base, self.tuned)[which], self._push(steer or {}, which, len(prompts))
        chat = self._chat(model)
        steering = None if pushed is None else Steering(block_of(chat, opened.settings, opened.layer), pushed)
        with evaluating(opened.loaded):
            said = list(answers(chat, prompts, n_new_tokens=n_new_tokens, seed=seed, steering=steering))
        return said[0] if isinstance(prompt, str) else said

    def _push(self, steer: Mapping[int, float], model: int, n_rows: int) -> Push | None:
        for latent, strength in steer.items():
            check_latent(latent, self.crosscoder.n_latents, "this crosscoder")
            if not math.isfinite(strength):
                raise ValueError(f"steer gives latent {latent} the strength {strength}; give a finite number")
        if not steer:
            return None
        if self.crosscoder.n_models != len(MODELS):
            raise ValueError("a diff_sae has no direction in either model, so nothing can be steered with it")
        latents = torch.tensor([int(latent) for latent in steer], dtype=torch.int64)
        strengths = torch.tensor([float(strength) for strength in steer.values()])
        vector = strengths @ raw_directions(self.crosscoder)[latents, model].cpu().float()
        nothing = torch.zeros(n_rows, len(vector))
        return Push(vector.expand(n_rows, -1), nothing, nothing[0])

    def _chat(self, model: str) -> ChatModel:
        if model not in self._chats:
            self._chats[model] = (self.base, self.tuned)[MODELS.index(model)].chat(self.tokenizer)
        return self._chats[model]

    @cached_property
    def _chats(self) -> dict[str, ChatModel]:
        """Whole models, read at the first question."""
        return {}

    def _tokenised(self, texts: Text | Sequence[Text]) -> TokenisedTexts:
        return tokenised(self.tokenizer, texts, mask=self.mask, context=self.context)

    def _rows(self, texts: TokenisedTexts) -> Float[Tensor, "token model d_model"]:
        return torch.stack([model.rows(texts.tokens) for model in (self.base, self.tuned)], dim=1)

    def _compare_with_training(self, found: Encoded) -> None:
        """Warn of texts that are reconstructed much worse, or with far more or fewer latents."""
        if found.fit.n_tokens < FEWEST_TOKENS or self._warned:
            return
        told = doubts(found, self.crosscoder.metadata.get("training") or {})
        if told:
            self._warned.append(told)
            warnings.warn(told, stacklevel=3)


def doubts(found: Encoded, training: Mapping[str, Any]) -> str | None:
    """The warning that models, layer or texts are not those of the training; None where FVE and L0 agree.

    Doubtful: an FVE below half of the training's, or with more than five times its unexplained share (below
    0.3 where it is unknown); an L0 below a third or above three times the training's.
    """
    parts = []
    for name, fve in found.fve.items():
        known = training.get(f"fve_{name}")
        if fve < (0.3 if known is None else max(known / 2, 1 - max(5 * (1 - known), 0.1))):
            parts.append(f"FVE of {name} is {fve:.2f}" + (f" (training: {known:.2f})" if known else ""))
    known = training.get("l0")
    if known and not known / LARGEST_L0_RATIO <= found.l0 <= known * LARGEST_L0_RATIO:
        parts.append(f"L0 is {found.l0:.1f} (training: {known:.1f})")
    if not parts:
        return None
    return (
        f"{'; '.join(parts)} on these {found.fit.n_tokens} tokens: the models, their layer or dtype, or the "
        "texts are not those that the crosscoder was trained on"
    )
