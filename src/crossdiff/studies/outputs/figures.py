"""Tables and figures of one pair's logits: tokens, documents, and how far apart the models' outputs are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from crossdiff.statistics.intervals import wilson

if TYPE_CHECKING:
    import pandas as pd

    from crossdiff.data.tokens import TokenSet

DRAWS = 2000


def token_table(found: dict[str, Tensor], token_set: TokenSet) -> pd.DataFrame:
    """One row per token that is among the K most raised or lowered of some position, most often raised first.

    Shares are of positions; `share_documents` (documents where it is among the K most raised at least once)
    has Wilson's 95 % interval, for documents are drawn independently and the positions of one are not.
    """
    import pandas as pd

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
