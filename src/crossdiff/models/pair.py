"""Settings of models, pairs and comparisons; fingerprints and paths of models."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from crossdiff.io.file_hashes import file_sha256
from crossdiff.settings import Settings

Dtype = Literal["float32", "bfloat16", "float16"]
Attention = Literal["eager", "sdpa", "flash_attention_2"]

ORGANISM = "organism:"
_IGNORED_SUFFIXES = (".md", ".png", ".lock", ".part")


class ModelSettings(Settings):
    """One model: its path, and how its forward pass is computed."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"name", "path", "adapter", "towards", "distance", "device_map", "trust_remote_code"}
    )

    name: str
    """Short name for figures and messages, such as `pt`."""
    path: str
    """Hub id, folder saved with `save_pretrained`, or `organism:<name>` for a model of the toy triple."""
    revision: str | None = None
    """Branch, tag or commit of a hub model; None is its main branch."""
    dtype: Dtype = "bfloat16"
    """Precision of weights and forward pass, on every machine."""
    attention: Attention = "eager"
    """Attention implementation; Gemma-2's logit soft-capping needs eager or flash_attention_2."""
    adapter: str | None = None
    """Hub id or folder of a PEFT adapter that is merged into the model."""
    towards: str | None = None
    """Second model: this one is `path + distance * (towards - path)`, weight by weight (step `blend`)."""
    distance: float = 0.0
    """0 is `path`, 1 is `towards`; values beyond 1 extrapolate."""
    device_map: str | None = None
    """How `transformers` spreads blocks over devices (`auto`; needs accelerate); None uses `device`."""
    trust_remote_code: bool = False
    """Run the model's Python code; only for repositories that you have read."""


class ModelPair(Settings):
    """Two models that share a tokenizer, or with `alignment=characters` two that do not."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"crosscoder", "crosscoder_scale", "alignment"})

    name: str
    base: ModelSettings
    tuned: ModelSettings
    template: ModelSettings | None = None
    """The model whose tokenizer and chat template both models use; by default the tuned model.

    Pairs with the same template share their token set and the harvest of a common base.
    """
    seed: int | None = None
    """Seed of this pair's crosscoder; by default the experiment's (experiment=seed_null)."""
    crosscoder: str | None = None
    """File, folder or hub id of a crosscoder that is read instead of trained."""
    crosscoder_scale: tuple[float, float] | None = None
    """Factors on the activations of base and tuned for a crosscoder whose file has none."""
    alignment: Literal["tokens", "characters"] = "tokens"
    """characters: two families, compared where their tokens end at one character (data/alignment.py)."""

    @property
    def template_model(self) -> ModelSettings:
        """`template`, or the tuned model."""
        return self.template or self.tuned

    @field_validator("base", "tuned", "template", mode="before")
    @classmethod
    def _from_path(cls, value: Any, info: Any) -> Any:
        """Accept a string as hub id or folder."""
        return {"name": info.field_name, "path": value} if isinstance(value, str) else value


def custom_pair(
    base: str,
    tuned: str,
    *,
    name: str = "custom",
    base_revision: str | None = None,
    tuned_revision: str | None = None,
    tuned_adapter: str | None = None,
    dtype: Dtype = "bfloat16",
    attention: Attention = "eager",
    device_map: str | None = None,
    trust_remote_code: bool = False,
    **crosscoder: Any,
) -> ModelPair:
    """A pair from two hub ids or folders (`model_pair=custom`); `crosscoder`: further fields of ModelPair.

    With `tuned_adapter`, `tuned` is the model that the adapter was trained on, usually the base.
    """
    shared: dict[str, Any] = {"dtype": dtype, "attention": attention, "device_map": device_map}
    shared["trust_remote_code"] = trust_remote_code
    return ModelPair(
        name=name,
        base=ModelSettings(name="base", path=base, revision=base_revision, **shared),
        tuned=ModelSettings(
            name="tuned", path=tuned, revision=tuned_revision, adapter=tuned_adapter, **shared
        ),
        **crosscoder,
    )


def check_layers(model: ModelSettings, layers: Sequence[int], n_blocks: int) -> None:
    """Refuse block indices that the model does not have."""
    outside = [layer for layer in layers if not 0 <= layer < n_blocks]
    if n_blocks < 1:
        raise ValueError(f"{model.path} has no blocks by its config.json; give the folder of a whole model")
    if outside:
        raise ValueError(
            f"layer={outside[0]} is outside {model.path}, whose {n_blocks} blocks have indices 0 to "
            f"{n_blocks - 1}; choose one of those"
        )


def fingerprint(model: ModelSettings) -> str:
    """The model's identity, independent of its path.

    `hub:<id>@<revision>` (by default the main branch), `folder:<sha256 of its files>` or `organism:<name>`,
    followed by the same for an adapter.
    """
    text = _fingerprint_of(model.path, model.revision)
    if model.towards is not None:
        text = f"blend:{text}+{model.distance!r}*({_fingerprint_of(model.towards, model.revision)})"
    return text if model.adapter is None else f"{text}+adapter:{_fingerprint_of(model.adapter, None)}"


def resolve(model: ModelSettings, organism: Path | None) -> str:
    """Path or hub id for `from_pretrained`; `organism` is the folder of that artifact."""
    if not model.path.startswith(ORGANISM):
        return str(Path(model.path).expanduser()) if is_folder(model.path) else model.path
    if organism is None:
        raise ValueError(f"{model.path} needs the organism step; run it in the pipeline (experiment=demo)")
    folder = organism / "models" / model.path.removeprefix(ORGANISM)
    if not folder.is_dir():
        names = sorted(path.name for path in (organism / "models").iterdir())
        raise ValueError(f"{model.path} is not among the organism's models {names}; name one of them")
    return str(folder)


def is_folder(path: str) -> bool:
    """Whether `path` is a local folder; ValueError for a missing one that cannot be a hub id."""
    folder = Path(path).expanduser()
    if folder.is_dir():
        return True
    if path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise ValueError(
            f"model folder {path} does not exist; give a folder saved with save_pretrained, "
            "or a hub id such as google/gemma-2-9b"
        )
    return False


def _fingerprint_of(path: str, revision: str | None) -> str:
    if path.startswith(ORGANISM):
        return path
    if not is_folder(path):
        return f"hub:{path}@{revision or 'main'}"
    files = _model_files(Path(path).expanduser())
    if not any(name == "config.json" or name == "adapter_config.json" for name, _ in files):
        raise ValueError(
            f"{path} has no config.json; give a folder saved with save_pretrained (model and tokenizer)"
        )
    with ThreadPoolExecutor(4) as pool:
        hashes = list(pool.map(lambda file: file_sha256(file[1]), files))
    text = "\n".join(f"{name} {digest}" for (name, _), digest in zip(files, hashes, strict=True))
    return f"folder:{hashlib.sha256(text.encode()).hexdigest()}"


def _model_files(folder: Path) -> list[tuple[str, str]]:
    """(name, path) of every file that can change the model's outputs."""
    return [
        (entry.name, entry.path)
        for entry in sorted(os.scandir(folder), key=lambda e: e.name)
        if entry.is_file() and not entry.name.startswith(".") and not entry.name.endswith(_IGNORED_SUFFIXES)
    ]


class Comparison(Settings):
    """Two pairs that share their base; the reference pair's tuned model gives the chat template."""

    reference: ModelPair
    treatment: ModelPair
    seed_null: str | None = None
    """Results of a finished `experiment=seed_null`, whose changes between seeds are a second null."""
    n_seeds: int = Field(default=1, ge=1)
    """Crosscoders per pair, of this and the following seeds; 2 or more measure the spread over seeds."""
    without: tuple[str, ...] = ()
    """Members (`<pair>_seed<k>`) to leave out, such as one whose training failed."""

    @model_validator(mode="after")
    def _null_fits(self) -> Comparison:
        if self.seed_null is not None and self.n_seeds > 1:
            raise ValueError(
                "comparison.seed_null has changes between single crosscoders, and "
                f"comparison.n_seeds={self.n_seeds} measures the spread over seeds itself; give "
                "comparison.n_seeds=1, or leave comparison.seed_null out"
            )
        return self

    def members(self, first_seed: int) -> dict[str, tuple[ModelPair, ...]]:
        """Pair -> its members: the pair, then `<pair>_seed<k>` for every further seed k.

        `first_seed` is for pairs without `seed`.
        """
        everyone = {pair.name: self._seeds(pair, first_seed) for pair in (self.reference, self.treatment)}
        names = [member.name for members in everyone.values() for member in members]
        if len(everyone) == 2 and len(set(names)) < len(names):
            raise ValueError(
                f"two crosscoders would have one name among {', '.join(names)}; rename a pair "
                "(comparison.reference.name=...)"
            )
        if unknown := sorted(set(self.without) - set(names)):
            raise ValueError(
                f"comparison.without names {unknown[0]}, which is no crosscoder here; those are "
                f"{', '.join(names)}"
            )
        kept = {
            pair: tuple(member for member in members if member.name not in self.without)
            for pair, members in everyone.items()
        }
        for pair, members in kept.items():
            if not members:
                raise ValueError(
                    f"comparison.without leaves {pair} no crosscoder; name fewer of them, or raise "
                    "comparison.n_seeds"
                )
        return kept

    def _seeds(self, pair: ModelPair, first_seed: int) -> tuple[ModelPair, ...]:
        first = first_seed if pair.seed is None else pair.seed
        further = (
            pair.model_copy(update={"name": f"{pair.name}_seed{seed}", "seed": seed})
            for seed in range(first + 1, first + self.n_seeds)
        )
        return (pair, *further)
