"""The output baseline: no crosscoder in its plan, one blind annotation, a sentence for every case."""

from pathlib import Path

import pytest

from crossdiff.pipeline.plan import plan
from crossdiff.studies.outputs import _sentence
from tests.composed import experiment
from tests.raised_bias import RAISED, save_biased
from tests.test_command_line import crossdiff


def test_no_crosscoder_is_trained() -> None:
    steps = plan(experiment("experiment=outputs", "size=ci"))
    assert [step.stage for step in steps] == ["organism", "tokens", "outputs", "outputs", "annotate", "study"]
    annotate = next(step for step in steps if step.stage == "annotate")
    assert set(annotate.parents) == {"documents_toy_pt_it", "documents_toy_pt_simpo"}


def test_the_price_of_the_labels_is_in_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    """7 topics of each of two pairs at the price of a latent, $0.0035."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    asked = ("experiment=outputs", "size=ci", "annotator=claude", "study.n_topics=7")
    annotate = next(step for step in plan(experiment(*asked)) if step.stage == "annotate")
    assert annotate.cost.api_usd == pytest.approx(14 * 0.0035)


def test_what_cannot_be_done_is_refused_before_it_runs(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="beside=.* has no summary.json"):
        plan(experiment("experiment=outputs", "size=ci", f"study.beside={tmp_path}"))
    with pytest.raises(ValueError, match="no norms to look at"):
        plan(experiment("experiment=outputs", "size=ci", "mask.outlier_norm=10"))


def test_equal_models_are_told() -> None:
    assert "predict the same" in _sentence("a_b", {"n_tokens_that_differ": 0, "n_positions": 12})


@pytest.mark.slow
def test_one_pair_of_folders_from_the_command_line(tmp_path: Path) -> None:
    folders = [save_biased(tmp_path / "base"), save_biased(tmp_path / "tuned", raised=RAISED)]
    (tmp_path / "texts.jsonl").write_text(
        "".join(f'{{"text": "the cat sat on a red mat {i}"}}\n' for i in range(40))
    )
    done = crossdiff(
        "experiment=outputs", "size=ci", "~comparison", "model_pair=custom", f"model_pair.base={folders[0]}",
        f"model_pair.tuned={folders[1]}", "model_pair.dtype=float32", "layer=1", "corpus=files",
        f"corpus.paths=[{tmp_path}/texts.jsonl]", f"store={tmp_path}/store", f"results_dir={tmp_path}/out",
        "study.n_topics=3", "progress=false",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "out" / "report.html").read_text()
    assert "most often raised" in page
    assert "custom: topics of the raised tokens" in page


def test_other_results_beside_are_another_study(tmp_path: Path) -> None:
    from crossdiff.studies.outputs import Outputs

    found = []
    for content in ("a", "b", "a"):
        (tmp_path / "deltas.csv").write_text(content)
        found.append(Outputs(beside=str(tmp_path)).identity())
    assert found[0] == found[2] != found[1]
