"""Changes held against those of another seed: by hand, valid under the null, and what a bad file says."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from crossdiff.statistics.deltas import category_deltas
from crossdiff.statistics.seed_null import SeedNullChanges, load_seed_null
from crossdiff.statistics.verdict import LEVEL
from tests.composed import experiment

SINGLE = ("comparison=toy_it_vs_simpo", "comparison.n_seeds=1", "layer=2", "corpus=toy")


def table(reference: dict[str, int], treatment: dict[str, int]) -> pd.DataFrame:
    labels = ([name for name, n in side.items() for _ in range(n)] for side in (reference, treatment))
    return category_deltas(*labels, draws=200)


def test_the_difference_and_its_p_by_hand() -> None:
    """10 of 40 against 20 of 40: |20 - 15| / sqrt(40 * .375 * .625 * 40 / 79) = 2.2949."""
    deltas = table({"mathematics": 10, "role_play": 30}, {"mathematics": 20, "role_play": 20})
    own = SeedNullChanges.of([deltas])
    assert own is not None
    assert own.of_categories == pytest.approx([2.29492] * 2, abs=1e-4)
    null = SeedNullChanges(n_comparisons=1, of_classes=(3.0,), of_categories=(0.5, 1.0, 2.0, 2.5))
    found = null.p_values(deltas)
    assert found[(deltas.level == "category").to_numpy()] == pytest.approx([2 / 5, 2 / 5])
    assert found[(deltas.level == "class").to_numpy()] == pytest.approx(1.0)


def test_other_and_absent_categories_have_no_p() -> None:
    deltas = table({"mathematics": 5, "other": 5}, {"mathematics": 5, "other": 9})
    null = SeedNullChanges(n_comparisons=1, of_classes=(1.0,), of_categories=(1.0,))
    found = dict(zip(deltas.name, null.p_values(deltas), strict=True))
    assert np.isnan(found["other"])
    assert not np.isnan(found["mathematics"])
    assert SeedNullChanges.of([table({"other": 3}, {"other": 4})]) is None


def test_under_the_null_a_p_is_valid() -> None:
    generator = np.random.default_rng(0)
    names, shares = ["mathematics", "role_play", "translation", "other"], [0.3, 0.2, 0.1, 0.4]

    def drawn() -> pd.DataFrame:
        sides = [dict(zip(names, generator.multinomial(100, shares), strict=True)) for _ in range(2)]
        return table(*sides)

    null = SeedNullChanges.of([drawn() for _ in range(40)])
    assert null is not None
    found = np.concatenate([null.p_values(drawn()) for _ in range(60)])
    found = found[~np.isnan(found)]
    assert (found <= LEVEL).mean() <= LEVEL + 2 * np.sqrt(LEVEL * (1 - LEVEL) / len(found))


def test_a_planned_comparison_holds_the_null_itself(tmp_path: Path) -> None:
    """The key of `compare` depends on the numbers, not on where they lay."""
    from crossdiff.pipeline.plan import plan

    null = SeedNullChanges(n_comparisons=1, of_classes=(1.0,), of_categories=(1.0, 2.0))
    (tmp_path / "summary.json").write_text(json.dumps({"numbers": {"null": null.model_dump()}}))
    assert load_seed_null(str(tmp_path / "summary.json")) == null
    asked = experiment(*SINGLE, f"comparison.seed_null={tmp_path}")
    (step,) = [step for step in plan(asked) if step.stage == "compare"]
    assert step.inputs.null == null  # type: ignore[attr-defined]


def test_a_comparison_with_the_tested_crosscoder_is_left_out(tmp_path: Path) -> None:
    """Of two comparisons the first has the comparison's own crosscoder, known by the key of its training."""
    from crossdiff.pipeline.plan import plan

    given = [*SINGLE, f"comparison.seed_null={tmp_path}"]
    nulls = [SeedNullChanges(n_comparisons=1, of_classes=(x,), of_categories=(x,)) for x in (1.0, 2.0)]
    whole = SeedNullChanges(n_comparisons=2, of_classes=(1.0, 2.0), of_categories=(1.0, 2.0))
    by_run = {
        f"seeds_{n}": {"pairs": [f"a_seed{n}", f"b_seed{n}"], "null": null.model_dump()}
        for n, null in enumerate(nulls)
    }

    def null_of(**keys: str) -> SeedNullChanges:
        steps = [{"name": f"train {pair}", "key": key} for pair, key in keys.items()]
        summary = {"numbers": {"null": whole.model_dump(), "by_run": by_run}, "steps": steps}
        (tmp_path / "summary.json").write_text(json.dumps(summary))
        (step,) = [step for step in plan(experiment(*given)) if step.stage == "compare"]
        return step.inputs.null  # type: ignore[attr-defined]

    trained = next(step.key for step in plan(experiment(*SINGLE)) if step.stage == "train")
    assert null_of(a_seed0="another") == whole
    assert null_of(a_seed0=trained) == nulls[1].model_copy(update={"n_left_out": 1})
    with pytest.raises(ValueError, match=r"own crosscoder \(a_seed0\).*experiment=seed_null seed=10"):
        null_of(a_seed0=trained, b_seed1=trained)
    by_run.clear()  # a study of an older version
    with pytest.raises(ValueError, match=r"own crosscoder"):
        null_of(a_seed0=trained)


@pytest.mark.parametrize("text", [None, "{}", '{"numbers": {"null": null}}', "no json"])
def test_a_file_without_a_null_is_one_message(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    with pytest.raises(ValueError, match=r"comparison\.seed_null=.*experiment=seed_null"):
        load_seed_null(str(tmp_path))
