"""A mistake in a setting is told with its full key, as it is typed."""

import pytest

from crossdiff import mistakes
from tests.actions.test_run import typed
from tests.composed import experiment

PAIR = ("model_pair=pt_simpo", "layer=20")


def message(*overrides: str) -> str:
    try:
        experiment(*PAIR, *overrides)
    except Exception as error:  # noqa: BLE001  mistakes.explain sees every failure
        return mistakes.explain(error) or f"not explained: {error!r}"
    return "accepted"


@pytest.mark.parametrize(
    ("overrides", "start"),
    [
        (["sparsity.k=0"], "sparsity.k=0: Input should be greater"),
        (["training.n_steps=-5"], "training.n_steps=-5: Input should be greater"),
        (["training.betas=[1,1]"], "training.betas.0=1: Input should be less than 1"),
        (["training.betas=[0.9]"], "training.betas=[0.9] lacks value number 2; give every value"),
        (["organism.tuning.n_steps=-5"], "organism.tuning.n_steps=-5: Input should be greater"),
        (["organism.n_few=5"], "organism.n_few=5, n_many=4"),
        (["mask.skip_first=-1"], "mask.skip_first=-1: Input should be greater"),
        (["mask.outlier_norm=0"], "mask.outlier_norm=0: Input should be greater"),
        (["corpus.sources.1.weight=0"], "corpus.sources.1.weight=0: Input should be greater"),
        (["sparsity.k=2000"], "sparsity.k_initial=1024 is below k=2000"),
        (["seed=99999999999999999999999"], "seed=99999999999999999999999: Input should be less"),
        (["seed=-1"], "seed=-1: Input should be greater"),
    ],
)
def test_a_value_is_named_with_its_group(overrides: list[str], start: str) -> None:
    assert message(*overrides).startswith(start), message(*overrides)


def test_one_value_for_a_list_is_told_how_a_list_is_written() -> None:
    told = message("corpus=files", "corpus.paths=text.jsonl")
    assert "list is wanted" in told
    assert "give 'corpus.paths=[text.jsonl]'" in told
    told = message("corpus=files", "corpus.paths=[]")
    assert told == "corpus.paths=[] is empty; give at least one value"


def test_a_setting_of_another_option_is_told_whose_it_is() -> None:
    told = message("sparsity=l1", "sparsity.k=8")
    assert "the sparsity chosen here has no k" in told
    assert "unlike sparsity=batch_topk, sparsity=topk, sparsity=toy" in told
    assert "remove it" in told
    assert "did you mean" not in told


def test_a_setting_that_no_option_has_gets_near_ones() -> None:
    assert "did you mean training.learning_rate" in message("training.learning_rat=1")


def test_a_wrong_stage_gets_the_nearest_and_every_stage_takes_resources() -> None:
    assert message("dispatch=slurm", "dispatch.stages.match.partition=x") == "accepted"
    assert message("dispatch=slurm", "dispatch.stages.trian.hours=3").startswith(
        "dispatch.stages.trian.hours: trian is no stage; did you mean train"
    )
    assert "did you mean partition" in message("dispatch=slurm", "dispatch.stages.train.partitoin=x")


def test_what_a_comparison_of_ones_own_leaves_out_is_added(tmp_path, monkeypatch, capfd) -> None:
    pair = "{_target_: crossdiff.models.pair.custom_pair, base: a/b, tuned: c/d, name: %s}"
    (tmp_path / "comparison").mkdir()
    (tmp_path / "comparison" / "mine.yaml").write_text(
        f"_target_: crossdiff.config.Comparison\nreference: {pair % 'old'}\ntreatment: {pair % 'new'}\n"
    )
    asked = ("--config-dir", str(tmp_path), "comparison=mine", "layer=1", "action=plan")
    for key in ("comparison.n_seeds", "comparison.reference.crosscoder"):
        assert typed(monkeypatch, *asked, f"{key}=2") == 2
        told = capfd.readouterr().err
        assert f"{key}: the chosen comparison's file leaves it out; add it as +{key}=..." in told
    assert typed(monkeypatch, *asked, "+comparison.n_seeds=0") == 2
    assert "comparison.n_seeds=0: Input should be greater" in capfd.readouterr().err
