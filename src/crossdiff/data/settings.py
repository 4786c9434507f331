"""Settings of activations: their source, the mask, and the documents that are shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from crossdiff.settings import Settings

if TYPE_CHECKING:
    from crossdiff.core.documented_latents import ExampleReservoirs

Subset = Literal["explain", "score"]
SUBSETS: tuple[Subset, ...] = ("explain", "score")
OVERSAMPLE = 4
"""Room of reservoirs, in multiples of the documents wanted."""
N_TOP = 10
"""Documents of a latent in `top_documents.parquet`: the highest peaks of the whole corpus."""


class CacheSource(Settings):
    """Activations are harvested once into shards on disk."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    storage: Literal["model", "float32", "bfloat16", "float16", "int8"] = "model"
    """Number format of a stored row; `model` is the model's own dtype, int8 has one scale per row."""
    batching: Literal["pack", "bucket"] = "pack"
    """Short documents share a row without attention between them, or lie in rows of similar length."""
    batch_tokens: int = Field(default=8192, ge=1)
    """Most tokens of one forward pass, padding included (at least one row)."""
    shard_tokens: int = Field(default=131_072, ge=1)
    """Least tokens of one corpus shard: the unit of resuming and parallel work, one file per layer."""


class LiveSource(Settings):
    """The models run during training; no activation is stored.

    Batches equal those of the cache up to rounding. A thread computes windows of blocks ahead; two windows of
    1 GiB are in memory.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    batching: Literal["pack", "bucket"] = "pack"
    batch_tokens: int = Field(default=8192, ge=1)
    statistics_tokens: int = Field(default=1_000_000, ge=1)
    """Tokens, spread over the corpus, for means and variances before training."""


class ImportedSource(Settings):
    """Another tool's activations: row i is the same token in every array (docs/harvest.md).

    Paths are not part of the key; the steps that read the files hash their content.
    """

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset(
        {"activations", "ids", "texts", "offsets", "kinds", "tokenizer"}
    )

    activations: dict[str, str] = Field(min_length=1)
    """Model -> .npy, .safetensors or .pt of rows `[token, d_model]`, or shard folder.

    Models go by their name in their pair, or `<pair>.<name>` where two pairs share names.
    """
    ids: str | None = None
    """Token id of every row; without ids and texts no document can be shown."""
    texts: str | None = None
    """Documents (.jsonl, .txt, .parquet) in the order of the rows, which are tokenised into ids."""
    offsets: str | None = None
    """Document n is rows `offsets[n]` up to `offsets[n + 1]`; without it no latent has an interval."""
    kinds: str | None = None
    """Kind of every row: 0 text, 1 BOS, 2 template, 3 special; without it template tokens are unknown."""
    tokenizer: str | None = None
    """Folder or hub id of the tokenizer of the ids; by default the pair's."""

    def path_of(self, model: str) -> str:
        """Path of a model's activations; ValueError for a model without one."""
        if model not in self.activations:
            raise ValueError(
                f"source.activations names {', '.join(self.activations)} and not {model}; give a file for "
                f"every model, as in 'source.activations={{{model}: {model}.npy, ...}}'"
            )
        return self.activations[model]


AnySource = CacheSource | LiveSource | ImportedSource


class MaskSettings(Settings):
    """Tokens that training and scaling see; never BOS or padding."""

    mask: Literal["default", "no_template"] = "default"
    """`no_template` also drops the control tokens of the chat template."""
    skip_first: int = Field(default=0, ge=0)
    """Drop the first n tokens of every document (BOS counts as one), of two families the first n of both."""
    outlier_norm: float | None = Field(default=None, gt=0)
    """Drop tokens whose norm, in any model, exceeds this multiple of that model's median norm."""


class DocumentsSettings(Settings):
    """Number, length and choice of a latent's examples.

    Half of a subset's examples are the documents with the highest peaks, half are spread over `n_quantiles`
    quantiles of the documents' peaks. A hash of its id decides the subset of a document.
    """

    n_examples: int = Field(default=20, ge=2)
    n_score_examples: int = Field(default=10, ge=0)
    score_share: float = Field(default=1 / 3, ge=0, lt=1)
    n_quantiles: int = Field(default=5, ge=1, le=100)
    window: int = Field(default=128, ge=8)
    n_controls: int = Field(default=20, ge=0)
    n_background: int = Field(default=300, ge=0)
    max_latents: int = Field(default=1000, ge=1)
    """Most exclusive latents per model; more are sampled, and the rest counted in selection.json."""
    n_drifted: int = Field(default=0, ge=0)
    """Shared latents with the largest drift that also get documents and labels."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"n_drifted"})

    def size(self, subset: Subset) -> int:
        """Examples wanted per latent."""
        return self.n_examples if subset == "explain" else self.n_score_examples

    def empty_reservoirs(self, n_latents: int) -> dict[Subset, ExampleReservoirs]:
        """Reservoirs with `OVERSAMPLE` times the documents wanted, because near-duplicates are dropped."""
        from crossdiff.core.documented_latents import ExampleReservoirs

        reservoirs: dict[Subset, ExampleReservoirs] = {}
        for subset in SUBSETS:
            size = OVERSAMPLE * self.size(subset)
            reservoirs[subset] = ExampleReservoirs.empty(n_latents, n_top=max(size, N_TOP), n_sample=size)
        return reservoirs
