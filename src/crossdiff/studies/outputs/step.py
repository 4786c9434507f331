"""Step `outputs`: both models' logits on the corpus, batch by batch, and what they say of each other."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crossdiff.io.tables import masked, values, write_json
from crossdiff.models.pair import resolve
from crossdiff.report.formatting import finite
from crossdiff.settings import Runtime
from crossdiff.stages.protocol import Stage, needs
from crossdiff.studies.outputs import OutputsInputs

if TYPE_CHECKING:
    import pandas as pd
    from torch import Tensor

    from crossdiff.data.tokens import TokenSet
    from crossdiff.studies.outputs.passes import Corpus, Reader

VERSION = 1
N_NAMED = 8
"""Tokens that the answer names."""
DRAWS = 2000


def run(inputs: OutputsInputs, parents: Mapping[str, Path], draft: Path, runtime: Runtime) -> dict[str, Any]:
    """Write `tokens.csv`, `documents.csv`, `outputs.json`, and the examples of every topic for annotators.

    Finished parts of a killed run are kept in `parts/`, which a finished artifact no longer has.
    """
    from crossdiff.studies.outputs.passes import read_parts
    from crossdiff.studies.outputs.topic_examples import raised_topics, write_examples

    corpus = _corpus(inputs, parents["tokens"])
    found = read_parts(
        corpus, draft / "parts", lambda: _reader(inputs, parents, corpus, runtime), progress=runtime.progress
    )
    if "document" not in found:
        raise ValueError(
            f"none of the {len(corpus.documents)} documents has a token that counts and another after it; "
            "give longer documents, or mask.mask=default mask.skip_first=0"
        )
    raised = raised_topics(found, inputs)
    topics = write_examples(raised, corpus, inputs, draft)
    _write_csv(document_table(found, corpus.token_set), draft / "documents.csv")
    tokens = token_table(found, corpus.token_set)
    _write_csv(tokens, draft / "tokens.csv")
    record = summary(found, seed=inputs.seed) | {
        "tuned": inputs.tuned.path,
        "most_raised": masked(tokens, values(tokens, "share_top") > 0)["token"].tolist()[:N_NAMED],
        "top_k": inputs.top_k,
        "topics": topics,
        "share_explained": None if raised is None else raised.topics.share_explained,
    }
    write_json(finite({"version": 1, **record}), draft / "outputs.json")
    if "organism" in parents:  # what was planted between it and simpo, for the study to look at
        shutil.copyfile(parents["organism"] / "planted.json", draft / "planted.json")
    shutil.rmtree(draft / "parts")
    return {name: record[name] for name in ("n_documents", "n_positions", "kl")} | {"n_topics": len(topics)}


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    """Texts in quotes: a token can be a line break, which would end its row."""
    table.to_csv(path, index=False, quoting=csv.QUOTE_NONNUMERIC)


def _corpus(inputs: OutputsInputs, folder: Path) -> Corpus:
    """The documents to read; tokens without ids or documents are refused."""
    import torch

    from crossdiff.core.streaming import mix
    from crossdiff.data.order import kept_tokens
    from crossdiff.data.tokens import TokenSet
    from crossdiff.studies.outputs.passes import Corpus

    token_set = TokenSet.open(folder)
    if not token_set.can_be_shown:
        raise ValueError(
            f"{folder} has no token ids or no documents, and logits need a text that the models read; name "
            "the texts of the rows (source.texts, source.offsets), or take a corpus"
        )
    order = mix(torch.arange(token_set.n_documents)).argsort()  # corpora alternate between sources
    documents = order[: inputs.n_documents].sort().values
    return Corpus(token_set, kept_tokens(token_set, inputs.mask), documents, len(token_set.tokenizer))


def _reader(inputs: OutputsInputs, parents: Mapping[str, Path], corpus: Corpus, runtime: Runtime) -> Reader:
    """Both models; ones whose tokenizers are not that of the tokens are refused."""
    from crossdiff.models.tokenizers import load_model_tokenizer, refuse_other_tokenizer
    from crossdiff.studies.outputs.passes import load_reader

    models = inputs.base, inputs.tuned
    paths = tuple(_path(model, parents) for model in models)
    for model, path in zip(models, paths, strict=True):
        own = load_model_tokenizer(model, path)
        names = {"reference_name": "the tokens of this run", "other_name": model.path}
        refuse_other_tokenizer(corpus.token_set.tokenizer, own, **names)
    return load_reader(
        models,
        (paths[0], paths[1]),
        device=runtime.device,
        batch_tokens=inputs.batch_tokens,
        top_k=inputs.top_k,
        n_vocabulary=corpus.n_vocabulary,
    )


def _path(model: Any, parents: Mapping[str, Path]) -> str:
    if model.towards is not None:
        raise ValueError(f"study outputs reads models that exist, and {model.name} is a blend; name another")
    return resolve(model, parents.get("organism"))


def token_table(found: dict[str, Tensor], token_set: TokenSet) -> pd.DataFrame:
    """One row per token that is among the K most raised or lowered of some position, most often raised first.

    Shares are of positions; `share_documents` (documents where it is among the K most raised at least once)
    has Wilson's 95 % interval, for documents are drawn independently and the positions of one are not.
    """
    import numpy as np
    import pandas as pd

    from crossdiff.statistics.intervals import wilson

    sums = {name.removeprefix("sum."): each for name, each in found.items() if name.startswith("sum.")}
    n_positions, n_documents = int(found["n_positions"].sum()), len(found["document"])
    ids = ((sums["top"] > 0) | (sums["bottom"] > 0)).nonzero().flatten()
    counts = {name: each[ids].numpy() for name, each in sums.items()}
    bounds = np.array([wilson(int(n), n_documents) for n in counts["top_documents"]]).reshape(-1, 2)
    frame = pd.DataFrame(
        {
            "token_id": ids.numpy(),
            "token": token_set.token_strings(ids),
            "share_top": counts["top"] / n_positions,
            "share_bottom": counts["bottom"] / n_positions,
            "share_raised": counts["raised"] / n_positions,
            "share_lowered": counts["lowered"] / n_positions,
            "share_positive_logit": counts["positive"] / n_positions,
            "mean_change": counts["total"] / n_positions,
            "share_documents": counts["top_documents"] / n_documents,
            "low": bounds[:, 0],
            "high": bounds[:, 1],
        }
    )
    return frame.sort_values(
        ["share_top", "share_raised", "token_id"], ascending=[False, False, True], ignore_index=True
    )


def document_table(found: dict[str, Tensor], token_set: TokenSet) -> pd.DataFrame:
    """One row per document: negative log-probabilities in nats per token, their difference, KL.

    Most `gain` (base - tuned) first: documents that the tuned model finds likelier (perplexity differencing,
    arXiv 2605.00994, ranks completions of the tuned model in this way, and here it is the corpus).
    """
    import pandas as pd

    n = found["n_positions"].double()
    documents = found["document"].tolist()
    base, tuned = (found["nll"][:, model] / n for model in (0, 1))
    frame = pd.DataFrame(
        {
            "document_id": [token_set.document_ids[document] for document in documents],
            "source": [token_set.sources[document] for document in documents],
            "n_tokens": found["n_positions"].numpy(),
            "nll_base": base.numpy(),
            "nll_tuned": tuned.numpy(),
            "gain": (base - tuned).numpy(),
            "kl": (found["kl"] / n).numpy(),
        }
    )
    return frame.sort_values("gain", ascending=False, ignore_index=True, kind="stable")


def summary(found: dict[str, Tensor], *, seed: int) -> dict[str, Any]:
    """Figures over all positions; 95 % percentile intervals over documents drawn anew."""
    import numpy as np

    from crossdiff.statistics.intervals import wilson

    n = found["n_positions"].double().numpy()
    sums = np.stack([found["kl"].numpy(), *found["nll"].double().numpy().T])
    drawn = np.random.default_rng([seed, 16]).multinomial(len(n), np.full(len(n), 1 / len(n)), size=DRAWS)
    means, resampled = sums.sum(axis=1) / n.sum(), drawn @ sums.T / (drawn @ n)[:, None]
    low, high = np.percentile(resampled, [2.5, 97.5], axis=0)
    names = ("kl", "nll_base", "nll_tuned")
    figures: dict[str, Any] = {"n_documents": len(n), "n_positions": int(n.sum())}
    for place, name in enumerate(names):
        figures |= {name: float(means[place]), f"{name}_low": float(low[place])}
        figures |= {f"{name}_high": float(high[place])}
    likelier = int((found["nll"][:, 1] < found["nll"][:, 0]).sum())
    bounds = wilson(likelier, len(n))
    figures |= {"n_likelier": likelier, "likelier_low": bounds[0], "likelier_high": bounds[1]}
    different = (found["sum.raised"] + found["sum.lowered"]) > 0
    return figures | {"n_vocabulary": len(different), "n_tokens_that_differ": int(different.sum())}


STAGE = Stage(
    "outputs",
    version=VERSION,
    run=run,
    reads=("organism", "tokens"),
    writes="what the logits of both models say, without a crosscoder",
    resources=needs(gpus=1, cpus=8, memory_gb=96, hours=12),
)
