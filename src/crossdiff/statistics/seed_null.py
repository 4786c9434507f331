"""p-values against the changes that another seed alone makes (the null of `experiment=seed_null`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Self

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

    They are |difference of shares| over its pooled standard error, so that large and small categories
    can be held against one another.
    """

    n_comparisons: int = Field(ge=1)
    of_classes: tuple[float, ...] = Field(min_length=1)
    of_categories: tuple[float, ...] = Field(min_length=1)

    @classmethod
    def of(cls, tables: list[pd.DataFrame]) -> Self | None:
        """From the delta tables of the null's comparisons; None where no latent has a category."""
        found = {
            level: [float(each) for table in tables for each in _differences(table, level) if each == each]
            for level in LEVELS
        }
        if not (found["class"] and found["category"]):
            return None
        return cls(
            n_comparisons=len(tables),
            of_classes=tuple(found["class"]),
            of_categories=tuple(found["category"]),
        )

    def p_values(self, deltas: pd.DataFrame) -> NDArray[np.float64]:
        """(1 + #{null >= observed}) / (1 + #null) per row of a delta table, against the null of its level.

        The smallest possible value is 1 / (1 + #null). NaN for `other` and where no latent has the category.
        Source of the form: Davison & Hinkley 1997, equation 4.11.
        """
        import numpy as np

        found = np.full(len(deltas), np.nan)
        for level, null in zip(LEVELS, (self.of_classes, self.of_categories), strict=True):
            observed = _differences(deltas, level)
            beyond = np.array(null) >= observed[:, None] - 1e-12
            p_values = (1 + beyond.sum(1)) / (1 + len(null))
            found = np.where(np.isnan(observed), found, p_values)
        return found


def load_seed_null(path: str) -> SeedNullChanges:
    """The null in the summary.json of a finished `experiment=seed_null`."""
    file = Path(path) / "summary.json" if Path(path).is_dir() else Path(path)
    try:
        found = json.loads(file.read_text(encoding="utf-8"))["numbers"]["null"]
    except OSError:
        raise ValueError(
            f"comparison.seed_null={path} cannot be read; give the results folder of a finished "
            "`python run.py experiment=seed_null`"
        ) from None
    except (json.JSONDecodeError, KeyError, TypeError):
        found = None
    if found is None:
        raise ValueError(
            f"comparison.seed_null={path} holds no seed null; it must be the results folder or summary.json "
            "of `python run.py experiment=seed_null`, whose comparisons had labelled exclusive latents"
        )
    return SeedNullChanges.model_validate(found)


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
    found = standardised_differences(treatment, reference + treatment, (n_reference, n_treatment))
    known = (deltas["level"] == level) & ~deltas["name"].isin(RESERVED) & (reference + treatment > 0)
    return np.where(known, found, np.nan)
