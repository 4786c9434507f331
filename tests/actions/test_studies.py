"""action=studies lists every preset with a study, its cost and its state; it runs nothing."""

from pathlib import Path

from crossdiff.actions.studies import states
from tests.test_command_line import crossdiff


def test_every_study_has_its_three_sizes(tmp_path: Path) -> None:
    found = states(tmp_path)
    names = {state.name for state in found}
    assert {"layers", "direct", "ablation", "corpus", "paper", "paper_10m", "llama3"} <= names
    assert len(found) == 3 * len(names)
    paper = next(state for state in found if (state.name, state.size) == ("paper", "paper"))
    assert paper.left.gpu_hours > 1
    assert paper.n_finished == 0


def test_the_command_needs_no_pair(tmp_path: Path) -> None:
    done = crossdiff("action=studies", f"store={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert "layers" in done.stdout
    assert not (tmp_path / "store").exists()
