"""source=files: what is planned, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from crossdiff.pipeline.cost import plan_table
from crossdiff.pipeline.steps import Step, group
from crossdiff.stages.import_activations import ImportHarvestInputs, ImportTokensInputs
from tests.pipeline.test_plan import steps

N_ROWS, D_MODEL = 40, 4
GIVEN = (
    "model_pair=custom",
    "model_pair.base=no/base",
    "model_pair.tuned=no/tuned",
    "layer=1",
    "source=files",
)
SMALL = ("training=ci", "training.batch_size=16")


def arrays(folder: Path, **changes: tuple[int, ...]) -> str:
    """Files of both models, as the command line names them."""
    for seed, name in enumerate(("base", "tuned")):
        shape = changes.get(name, (N_ROWS, D_MODEL))
        np.save(folder / f"{name}.npy", np.random.default_rng(seed).normal(size=shape).astype("float32"))
    return f"source.activations={{base: {folder}/base.npy, tuned: {folder}/tuned.npy}}"


def vector(path: Path, values: object) -> str:
    np.save(path, np.asarray(values))
    return str(path)


def of(stage: str, plan: list[Step]) -> list[Step]:
    return [step for step in plan if step.stage == stage]


def test_files_take_the_place_of_the_corpus_and_of_the_models(tmp_path: Path) -> None:
    asked = (*GIVEN, *SMALL, arrays(tmp_path), f"source.offsets={vector(tmp_path / 'o.npy', [0, 9, 40])}")
    plan = steps(*asked)
    (tokens,), harvests = of("tokens", plan), of("harvest", plan)
    assert isinstance(tokens.inputs, ImportTokensInputs)
    assert all(isinstance(step.inputs, ImportHarvestInputs) for step in harvests)
    assert [step.shown for step in harvests] == ["harvest base (imported)", "harvest tuned (imported)"]
    assert "tokens files (imported)" in plan_table(plan, tmp_path / "store")
    assert len(group(harvests)) == 2  # nothing to share a forward pass of
    assert {step.definition.resources.gpus for step in (tokens, *harvests)} == {0}
    assert all(step.definition.shards is None for step in harvests)


def test_moved_files_keep_their_keys_and_other_content_has_others(tmp_path: Path) -> None:
    plans = []
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        plans.append(steps(*GIVEN, *SMALL, arrays(tmp_path / name)))
    assert [step.key for step in plans[0]] == [step.key for step in plans[1]]
    (tmp_path / "there" / "tuned.npy").write_bytes((tmp_path / "there" / "base.npy").read_bytes())
    changed = steps(*GIVEN, *SMALL, plans_of(tmp_path / "there"), "model_pair.tuned_revision=v2")
    assert of("harvest", changed)[0].key == of("harvest", plans[0])[0].key
    assert of("harvest", changed)[1].key != of("harvest", plans[0])[1].key


def plans_of(folder: Path) -> str:
    return f"source.activations={{base: {folder}/base.npy, tuned: {folder}/tuned.npy}}"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    both, ids = arrays(tmp_path), vector(tmp_path / "i.npy", range(N_ROWS))
    for name in ("short", "wide"):
        (tmp_path / name).mkdir()
    short = arrays(tmp_path / "short", tuned=(N_ROWS - 1, D_MODEL))
    wide = arrays(tmp_path / "wide", base=(N_ROWS, D_MODEL + 1))
    offsets = vector(tmp_path / "o.npy", [0, 9, 50])
    for overrides, said in (
        ((short,), "differ in rows: base has 40, tuned has 39"),
        ((wide,), "differ in d_model: base has 5, tuned has 4"),
        ((both, f"source.offsets={offsets}"), "shorter than its offsets"),
        ((both, f"source.ids={ids}", f"source.texts={ids}"), "both say what the tokens are"),
        ((f"source.activations={{base: {tmp_path}/base.npy}}",), "names base and not tuned"),
        ((both[:-1] + ", it: x.npy}",), "names it, which is no model here"),
        ((both, "mask.skip_first=1"), "no offsets say where"),
        ((both, "mask.mask=no_template"), "nothing says which these are"),
        ((both, "training.batch_size=64"), "40 rows cannot fill one batch"),
        ((both, "experiment=self_diff", "~comparison"), "runs models itself"),
    ):
        with pytest.raises(ValueError, match=said):
            steps(*GIVEN, *SMALL, *overrides)


def test_another_width_than_the_models_is_refused(tmp_path: Path) -> None:
    toy = ("model_pair=toy_pt_it", "layer=1", "source=files", *SMALL)
    asked = arrays(tmp_path).replace("base: ", "pt: ").replace("tuned: ", "it: ")
    with pytest.raises(ValueError, match=r"are 4 wide, and organism:pt has d_model"):
        steps(*toy, asked)
