"""The train stage on small finished artifacts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.sparsity import BatchTopK
from crossdiff.data import paired_activations
from crossdiff.data.harvest.write import write_harvest
from crossdiff.data.paired_activations import MaskSettings, PairedActivations
from crossdiff.data.tokens import TokenSet
from crossdiff.io.tables import read_json
from crossdiff.settings import Runtime
from crossdiff.stages import train
from crossdiff.training.settings import TrainingSettings
from crossdiff.training.source import check_finite
from tests.scaling_artifacts import LAYER, Artifacts, build

QUIET = Runtime(progress=False)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return build(tmp_path_factory.mktemp("train"))


def inputs(**changes: object) -> train.TrainInputs:
    settings = {"n_steps": 20, "batch_size": 128, "learning_rate": 3e-3, "warmup_steps": 5, "log_every": 5}
    return train.TrainInputs(
        **{
            "layer": LAYER,
            "dictionary": DictionarySettings(n_latents=64),
            "sparsity": BatchTopK(k=4),
            "training": TrainingSettings(**settings),  # type: ignore[arg-type]
            **changes,
        }
    )


def parents(artifacts: Artifacts) -> dict[str, Path]:
    return {role: artifacts.parents[role] for role in ("tokens", "harvest_base", "harvest_tuned")}


def test_the_stage_writes_a_loadable_crosscoder_its_metrics_and_figures(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    figures = train.run(inputs(), parents(artifacts), tmp_path, QUIET)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crosscoder", "metrics.csv", "training.json"]
    crosscoder = Crosscoder.load(tmp_path / "crosscoder")
    assert crosscoder.metadata["training"] == figures == read_json(tmp_path / "training.json")
    assert crosscoder.metadata["inputs"] == inputs().identity()
    assert set(crosscoder.metadata["parents"]) == {"tokens", "harvest_base", "harvest_tuned"}
    expected = {"fve_base", "fve_tuned", "l0", "l0_threshold", "dead_share", "k", "n_latents", "threshold"}
    assert expected | {"n_steps", "tokens_per_s"} <= figures.keys()


def test_the_normaliser_holds_the_statistics_of_the_unmasked_training_rows(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    train.run(inputs(), parents(artifacts), tmp_path, QUIET)
    normaliser = Crosscoder.load(tmp_path / "crosscoder").normaliser
    source = PairedActivations.open(
        artifacts.parents["tokens"],
        [artifacts.parents["harvest_base"], artifacts.parents["harvest_tuned"]],
        layer=LAYER,
        mask=MaskSettings(),
    )
    x = artifacts.x[source.rows("train")].double()
    torch.testing.assert_close(normaliser.mean.double(), x.mean(0), rtol=1e-5, atol=1e-5)
    rms = normaliser.normalise(x.float()).square().sum(2).mean(0).sqrt()
    torch.testing.assert_close(rms, torch.full((2,), 8**0.5), rtol=1e-4, atol=0)


def test_the_same_inputs_give_the_same_bits_and_another_seed_others(
    artifacts: Artifacts, tmp_path: Path
) -> None:
    weights = []
    for name, seed in (("first", 0), ("again", 0), ("other", 1)):
        (tmp_path / name).mkdir()
        train.run(inputs(seed=seed), parents(artifacts), tmp_path / name, QUIET)
        weights.append(Crosscoder.load(tmp_path / name / "crosscoder").decoder)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_trainings_together_leave_the_files_of_trainings_alone(artifacts: Artifacts, tmp_path: Path) -> None:
    given = [
        inputs(seed=seed, training=inputs().training.model_copy(update={"members": 2})) for seed in (3, 4)
    ]
    drafts = [tmp_path / name for name in ("a", "b")]
    found = train.run_together(given, parents(artifacts), drafts, QUIET)
    for one, draft, figures in zip(given, drafts, found, strict=True):
        alone = tmp_path / f"alone_{one.seed}"
        train.run(one, parents(artifacts), alone, QUIET)
        weights = [Crosscoder.load(folder / "crosscoder").state_dict() for folder in (draft, alone)]
        assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
        assert figures == read_json(draft / "training.json")  # type: ignore[comparison-overlap]


def test_members_with_orders_of_their_own_share_no_reader_where_rows_do_not_fit(
    artifacts: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(paired_activations, "WINDOW_BYTES", 1 << 14)
    given = [inputs(seed=seed) for seed in (3, 4)]
    found = train.run_together(given, parents(artifacts), [tmp_path / "a", tmp_path / "b"], QUIET)
    assert "training.order_seed=0 gives all members one order" in capsys.readouterr().out
    assert all(isinstance(each, dict) for each in found)


class Unread:
    """A source that nobody may open."""

    def __call__(self) -> PairedActivations:
        pytest.fail("trained again")


@pytest.fixture
def finished(artifacts: Artifacts, tmp_path: Path) -> tuple[Path, dict]:
    return tmp_path, train.run(inputs(), parents(artifacts), tmp_path, QUIET)


def test_a_finished_training_in_the_draft_is_not_done_again(
    artifacts: Artifacts, finished: tuple[Path, dict]
) -> None:
    draft, figures = finished
    (draft / ".resume").mkdir()  # the process died before it was removed
    before = (draft / "metrics.csv").read_bytes()
    again = train.fit_and_save(inputs(), parents(artifacts), Unread(), draft=draft, runtime=QUIET)
    assert again == figures
    assert (draft / "metrics.csv").read_bytes() == before
    assert not (draft / ".resume").exists()


@pytest.mark.parametrize("half", ["weights", "config", "figures", "other seed", "other parents"])
def test_half_a_training_or_that_of_another_run_is_done_again(
    half: str, artifacts: Artifacts, finished: tuple[Path, dict]
) -> None:
    draft, _ = finished
    weights, found, seed = draft / "crosscoder" / "weights.safetensors", parents(artifacts), 0
    match half:
        case "weights":
            weights.write_bytes(weights.read_bytes()[:500])
        case "config":
            (draft / "crosscoder" / "config.json").unlink()
        case "figures":
            (draft / "training.json").unlink()
        case "other seed":
            seed = 1
        case "other parents":
            found = {role: path for role, path in found.items() if role != "harvest_tuned"}
    with pytest.raises(pytest.fail.Exception, match="trained again"):
        train.fit_and_save(inputs(seed=seed), found, Unread(), draft=draft, runtime=QUIET)


def test_a_batch_larger_than_the_corpus_is_refused(artifacts: Artifacts, tmp_path: Path) -> None:
    training = TrainingSettings(n_steps=5, batch_size=100_000)
    with pytest.raises(ValueError, match=r"fewer than one batch of 100,000; give more text"):
        train.run(inputs(training=training), parents(artifacts), tmp_path, QUIET)


def test_a_bad_activation_is_named_by_its_shard(tmp_path: Path) -> None:
    own = build(tmp_path)
    bad = own.x[:, 1].contiguous().clone()
    bad[1234, 5] = float("nan")
    tokens = TokenSet.open(own.parents["tokens"])
    shutil.rmtree(own.parents["harvest_tuned"])
    write_harvest(own.parents["harvest_tuned"], tokens, {LAYER: bad}, shard_tokens=500)
    source = PairedActivations.open(
        own.parents["tokens"], [own.parents["harvest_base"], own.parents["harvest_tuned"]],
        layer=LAYER, mask=MaskSettings(),
    )  # fmt: skip
    with pytest.raises(
        ValueError, match=r"token rows \[1234\].*harvest_tuned/layer_3/shard_.*2.safetensors row 194"
    ):
        check_finite(source.read(torch.arange(1200, 1300)), source)


def test_settings_of_other_groups_are_no_part_of_the_identity() -> None:
    assert set(inputs().identity()) == {
        "settings",
        "layer",
        "dictionary",
        "sparsity",
        "training",
        "mask",
        "seed",
    }
