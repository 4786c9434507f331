"""Stage tokens: the corpus as token ids of one tokenizer and chat template, for every model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from crossdiff.data.corpus import CorpusSettings, as_mixture
from crossdiff.io.progress import show_notices
from crossdiff.models.pair import ModelSettings, resolve
from crossdiff.models.tokenizers import load_model_tokenizer
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.import_activations import ImportTokensInputs, import_tokens
from crossdiff.stages.protocol import Stage, needs

VERSION = 2


class TokensInputs(Settings):
    """What determines the token ids: the corpus, and the tokenizer with its chat template."""

    NOT_IDENTITY: ClassVar[frozenset[str]] = frozenset()

    corpus: CorpusSettings
    corpus_fingerprint: str
    """`data.corpus.fingerprint(corpus)`."""
    tokenizer: ModelSettings
    """The model whose tokenizer and template are used: by default the reference pair's tuned model."""
    tokenizer_fingerprint: str
    """`models.pair.fingerprint(tokenizer)`, with `+letters` for a template that changes letters."""


def run(
    inputs: TokensInputs | ImportTokensInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime
) -> dict[str, Any]:
    """Write the token set, continuing the draft of a killed run.

    Imported activations bring their tokens (`stages/import_activations.py`).
    """
    from crossdiff.data.build import build_token_set

    if isinstance(inputs, ImportTokensInputs):
        return import_tokens(inputs, parents, draft, runtime)
    organism = parents.get("organism")
    model = inputs.tokenizer
    tokenizer = load_model_tokenizer(model, resolve(model, organism))
    identity = hashlib.sha256(json.dumps(inputs.identity(), sort_keys=True).encode()).hexdigest()
    tokens = build_token_set(
        as_mixture(inputs.corpus),
        tokenizer,
        draft,
        organism=organism,
        progress=runtime.progress,
        identity=identity,
    )
    details = tokens.details
    show_notices("tokens", details["notices"])
    return {
        "n_documents": tokens.n_documents,
        "n_tokens": tokens.n_tokens,
        "token_hash": tokens.token_hash,
        "tokens_per_kind": details["tokens_per_kind"],
        "duplicates": sum(source["duplicates"] for source in details["sources"].values()),
        "cut": sum(source["cut"] for source in details["sources"].values()),
        "bad": sum(source["bad"] for source in details["sources"].values()),
        "notices": details["notices"],
    }


STAGE = Stage(
    "tokens",
    version=VERSION,
    run=run,
    reads=("organism",),
    writes="token ids, kinds, offsets, token hash",
    resources=needs(cpus=8, memory_gb=32, hours=6),
    has_settings=True,
)
