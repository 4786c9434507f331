"""p-values against changes between crosscoders that differ in their seed (null of `experiment=seed_null`)."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from pydantic import Field

from crossdiff.settings import Settings
from crossdiff.taxonomy.scheme import RESERVED

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    from numpy.typing import NDArray

LEVELS = ("class", "category")


class SeedNullChanges(Settings):
    """Standardised differences between crosscoders that differ in their seed alone, `other` left out.

    |difference of shares| over its pooled standard error makes large and small categories comparable.
    """

    n_comparisons: int = Field(ge=1)
    of_classes: tuple[float, ...] = Field(min_length=1)
    of_categories: tuple[float, ...] = Field(min_length=1)
    n_left_out: int = 0
    """Comparisons of the null that share a crosscoder with the tested comparison."""

    ADDED: ClassVar[frozenset[str]] = frozenset({"n_left_out"})

    @classmethod
    def of(cls, tables: list[pd.DataFrame]) -> Self | None:
        """Read the delta tables of the null's comparisons; None where no latent has a category."""
        by_level = {
            level: [
                float(difference)
                for table in tables
                for difference in _differences(table, level)
                if difference == difference
            ]
            for level in LEVELS
        }
        if not (by_level["class"] and by_level["category"]):
            return None
        return cls(
            n_comparisons=len(tables),
            of_classes=tuple(by_level["class"]),
            of_categories=tuple(by_level["category"]),
        )

    def p_values(self, deltas: pd.DataFrame) -> NDArray[np.float64]:
        """(1 + #{null >= observed}) / (1 + #null) per row of a delta table, against the null of its level.

        The smallest possible value is 1 / (1 + #null). NaN for `other` and where no latent has the category.
        Source of the form: Davison & Hinkley 1997, equation 4.11.
        """
        import numpy as np

        p = np.full(len(deltas), np.nan)
        for level, null in zip(LEVELS, (self.of_classes, self.of_categories), strict=True):
            observed = _differences(deltas, level)
            beyond = np.array(null) >= observed[:, None] - 1e-12
            p_values = (1 + beyond.sum(1)) / (1 + len(null))
            p = np.where(np.isnan(observed), p, p_values)
        return p


def load_seed_null(path: str, crosscoders: Collection[str] = ()) -> SeedNullChanges:
    """The null in the summary.json of a finished `experiment=seed_null`.

    `crosscoders` are the keys of the tested train steps. Comparisons of the null that have one of them are
    left out: their change shares the noise of the tested one, which makes p invalid.
    """
    file = Path(path) / "summary.json" if Path(path).is_dir() else Path(path)
    try:
        summary = json.loads(file.read_text(encoding="utf-8"))
        null = summary["numbers"]["null"]
    except OSError:
        raise ValueError(
            f"comparison.seed_null={path} cannot be read; give the results folder of a finished "
            "`python run.py experiment=seed_null`"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError):
        null = None
    if null is None:
        raise ValueError(
            f"comparison.seed_null={path} holds no seed null; it must be the results folder or summary.json "
            "of `python run.py experiment=seed_null`, whose comparisons had labelled exclusive latents"
        )
    steps = summary.get("steps") or ()
    trained = {step["name"].removeprefix("train ") for step in steps if step["key"] in crosscoders}
    if not trained:
        return SeedNullChanges.model_validate(null)
    apart = _without(summary["numbers"].get("by_run") or {}, trained)
    if apart is None:
        raise ValueError(
            f"comparison.seed_null={path} is made of this comparison's own crosscoder ({min(trained)}), so "
            "its changes are no null for it; give the results of a run from other seeds: "
            "`python run.py experiment=seed_null seed=10 results_dir=...`"
        )
    return apart


def _without(by_run: Mapping[str, Mapping[str, Any]], trained: Collection[str]) -> SeedNullChanges | None:
    """The null of the runs without a pair in `trained`; None where nothing is left."""
    kept = [run for run in by_run.values() if not set(run["pairs"]) & set(trained)]
    nulls = [run["null"] for run in kept if run["null"] is not None]
    if not nulls:
        return None
    return SeedNullChanges(
        n_comparisons=len(kept),
        of_classes=tuple(change for null in nulls for change in null["of_classes"]),
        of_categories=tuple(change for null in nulls for change in null["of_categories"]),
        n_left_out=len(by_run) - len(kept),
    )


def _differences(deltas: pd.DataFrame, level: str) -> NDArray[np.float64]:
    """Per row; NaN for other levels, `other` and `uninterpretable`, and rows that count nothing."""
    import numpy as np

    from crossdiff.statistics.significance import standardised_differences

    reference, treatment = (deltas[f"count_{side}"].to_numpy(np.int64) for side in ("reference", "treatment"))
    n_reference, n_treatment = (
        int(deltas[f"total_{side}"].to_numpy(np.int64).max(initial=0)) for side in ("reference", "treatment")
    )
    if min(n_reference, n_treatment) == 0:
        return np.full(len(deltas), np.nan)
    differences = standardised_differences(treatment, reference + treatment, (n_reference, n_treatment))
    known = (deltas["level"] == level) & ~deltas["name"].isin(RESERVED) & (reference + treatment > 0)
    return np.where(known, differences, np.nan)
