"""action=studies lists every preset with a study, its cost and its state; it runs nothing."""

from collections import Counter
from pathlib import Path

import pytest

from crossdiff import config
from crossdiff.actions.studies import HEADER, perform
from tests.composed import experiment
from tests.test_command_line import crossdiff


def rows(table: str) -> dict[tuple[str, str], list[str]]:
    """(study, size) -> cells of the printed table; the question, the last, has spaces."""
    cells = [line.split(maxsplit=len(HEADER) - 1) for line in table.splitlines()]
    return {(row[0], row[1]): row for row in cells if row[1:2] in (["ci"], ["toy"], ["paper"])}


def test_a_study_is_listed_with_its_cost_and_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(config, "study_names", lambda: ["paper"])
    asked = experiment("action=studies").model_copy(update={"store": tmp_path / "store"})
    assert perform([asked]) == 0
    states = rows(capsys.readouterr().out)
    assert list(states) == [("paper", "ci"), ("paper", "toy"), ("paper", "paper")]
    _, _, n_steps, n_finished, gpu_hours, *_ = states["paper", "paper"]
    assert (int(n_steps), int(n_finished)) == (15, 0)
    assert float(gpu_hours) > 1
    assert not (tmp_path / "store").exists()


def test_the_studies_are_the_experiments_that_ask_for_one() -> None:
    names = config.study_names()
    assert {"layers", "direct", "ablation", "corpus", "paper", "paper_10m", "llama3"} <= set(names)
    assert not {"demo", "toy", "minder", "paper_ensemble"} & set(names)


@pytest.mark.slow
def test_every_study_has_its_three_sizes(tmp_path: Path) -> None:
    done = crossdiff("action=studies", f"store={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert Counter(name for name, _ in rows(done.stdout)) == dict.fromkeys(config.study_names(), 3)
    assert not (tmp_path / "store").exists()
