"""Running a plan here: reuse, resume, one forward pass for several layers, damaged parents."""

import os
import subprocess
import sys
import types
from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff.dispatch.local import run_steps
from crossdiff.io import artifacts
from crossdiff.io.artifacts import DamagedArtifact
from crossdiff.io.tables import read_json
from crossdiff.pipeline.steps import Step, group
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, Together


class Inputs(Settings):
    text: str = "x"


class Layered(Settings):
    layers: tuple[int, ...]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list:
    """Stages `tokens` and `harvest` replaced by small ones that record their calls."""
    seen: list = []

    def tokens(inputs, parents, draft, runtime):
        seen.append(("tokens", inputs.text))
        if inputs.text == "fail":
            (draft / "half").write_text("half")
            raise RuntimeError("stop")
        (draft / "out.txt").write_text(inputs.text)
        return {"n": 1}

    def harvest(inputs, parents, draft, runtime):
        seen.append(("harvest", inputs.layers))
        for layer in inputs.layers:
            (draft / f"layer_{layer}").mkdir()
            (draft / f"layer_{layer}" / "rows").write_text(
                f"{layer} {(parents['tokens'] / 'out.txt').read_text()}"
            )
        (draft / "shared.json").write_text("{}")
        return {"n": len(inputs.layers)}

    for name, run in (("tokens", tokens), ("harvest", harvest)):
        module = types.ModuleType(f"crossdiff.stages.{name}")
        module.STAGE = Stage(name, version=1, run=run, reads=(), writes="", joins_layers=name == "harvest")  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return seen


def runtime(tmp_path: Path) -> Runtime:
    return Runtime(store=tmp_path / "store", progress=False)


def steps() -> list[Step]:
    tokens = Step("tokens", "", Inputs())
    return [
        tokens,
        *(Step("harvest", "pt", Layered(layers=(layer,)), {"tokens": tokens}) for layer in (3, 1)),
    ]


def test_a_second_run_reuses_everything(tmp_path: Path, calls: list) -> None:
    first = run_steps(steps(), runtime(tmp_path))
    second = run_steps(steps(), runtime(tmp_path))
    assert [outcome.state for outcome in first] == ["done"] * 3
    assert [outcome.state for outcome in second] == ["reused"] * 3
    assert len(calls) == 2


def test_several_layers_share_one_call_and_are_artifacts_of_their_own(tmp_path: Path, calls: list) -> None:
    run_steps(steps(), runtime(tmp_path))
    assert ("harvest", (1, 3)) in calls
    for step in steps()[1:]:
        layer = step.inputs.layers[0]
        folder = step.folder(tmp_path / "store")
        assert (folder / f"layer_{layer}" / "rows").read_text() == f"{layer} x"
        assert (folder / "shared.json").exists()
        assert [path.name for path in folder.glob("layer_*")] == [f"layer_{layer}"]
        assert read_json(folder / "manifest.json")["inputs"] == {"layers": [layer]}


def test_a_failed_step_is_not_finished_and_keeps_its_draft(tmp_path: Path, calls: list) -> None:
    step = Step("tokens", "", Inputs(text="fail"))
    with pytest.raises(RuntimeError, match="stop"):
        run_steps([step], runtime(tmp_path))
    assert not step.is_finished(tmp_path / "store")
    assert (tmp_path / "store" / "tokens" / f".{step.key}.draft" / "half").exists()


def test_steps_made_together_have_drafts_of_their_own_and_one_refusal_keeps_the_others(
    tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    def make(inputs, parents, drafts, runtime):
        calls.append([each.text for each in inputs])
        for each, draft in zip(inputs, drafts, strict=True):
            (draft / "out.txt").write_text(each.text)
        return [ValueError("no") if each.text == "bad" else {"n": 1} for each in inputs]

    one = lambda inputs, parents, draft, runtime: make([inputs], parents, [draft], runtime)[0]  # noqa: E731
    together = Together(lambda inputs: "all", lambda inputs: 3, make)
    module = types.ModuleType("crossdiff.stages.train")
    module.STAGE = Stage("train", version=1, run=one, reads=("tokens",), writes="", together=together)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr("crossdiff.dispatch.local.raised_by_us", lambda error: True)
    tokens, failed = steps()[0], []
    asked = [Step("train", text, Inputs(text=text), {"tokens": tokens}) for text in ("a", "bad", "c", "d")]
    assert [job.name for job in group(asked)] == ["train a, bad, c", "train d"]
    with pytest.raises(ValueError, match="no"):
        run_steps([tokens, *asked], runtime(tmp_path), failed=lambda step, error: failed.append(step.label))
    assert (calls[1:], failed) == ([["a", "bad", "c"]], ["bad"])
    assert [step.is_finished(runtime(tmp_path).store) for step in asked] == [True, False, True, False]
    made = run_steps([tokens, asked[0], *asked[2:]], runtime(tmp_path))
    assert [outcome.state for outcome in made] == ["reused", "reused", "reused", "done"]
    assert artifacts.read_manifest(asked[2].folder(runtime(tmp_path).store))["inputs"] == {"text": "c"}


def test_an_altered_parent_is_refused_before_it_is_used(tmp_path: Path, calls: list) -> None:
    tokens, *rest = steps()
    run_steps([tokens], runtime(tmp_path))
    (tokens.folder(tmp_path / "store") / "out.txt").write_text("y")
    with pytest.raises(DamagedArtifact, match="altered"):
        run_steps(rest, runtime(tmp_path))


class FromFile(Settings):
    path: Path
    text: str = "x"

    def identity(self) -> dict:
        return {"content": self.path.read_text()}


def test_a_file_edited_while_its_step_ran_is_no_result(
    tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise labels of the edited taxonomy would lie under the key of the one that was planned."""
    taxonomy = tmp_path / "taxonomy.yaml"
    taxonomy.write_text("first")
    module = sys.modules["crossdiff.stages.tokens"]
    plain = module.STAGE
    step = Step("tokens", "", FromFile(path=taxonomy))
    assert step.key

    def edited(*given):
        taxonomy.write_text("second")
        return plain.run(*given)

    monkeypatch.setattr(module, "STAGE", replace(plain, run=edited))
    with pytest.raises(ValueError, match=r"tokens reads was changed while the command ran"):
        run_steps([step], runtime(tmp_path))
    assert not step.is_finished(tmp_path / "store")
    again = Step("tokens", "", FromFile(path=taxonomy))
    assert [outcome.state for outcome in run_steps([again], runtime(tmp_path))] == ["done"]


def test_a_store_that_cannot_be_written_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file where the store should be")
    with pytest.raises(ValueError, match="cannot be written"):
        run_steps([], runtime(tmp_path))


CONCURRENT = """
import sys, time, types
from pathlib import Path
from crossdiff.dispatch.local import run_steps
from crossdiff.pipeline.steps import Step, group
from crossdiff.settings import Runtime, Settings
from crossdiff.stages.protocol import Stage, Together
module = types.ModuleType("crossdiff.stages.tokens")
def run(inputs, parents, draft, runtime):
    with open(sys.argv[2], "a") as log: log.write("ran\\n")
    time.sleep(1.0); (draft / "out").write_text("x"); return {}
module.STAGE = Stage("tokens", version=1, run=run, reads=(), writes="")
sys.modules[module.__name__] = module
print(run_steps([Step("tokens", "", Settings())], Runtime(store=Path(sys.argv[1])))[0].state)
"""


def test_two_processes_with_one_key_compute_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", CONCURRENT, str(tmp_path / "store"), str(tmp_path / "log")]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    states = sorted(process.communicate(timeout=60)[0].split()[-1] for process in both)
    assert states == ["done", "reused"]
    assert (tmp_path / "log").read_text() == "ran\n"


def test_a_kill_amid_publishing_loses_no_layer(
    tmp_path: Path, calls: list, monkeypatch: pytest.MonkeyPatch
) -> None:
    renames = []
    plain = artifacts.publish

    def killed(final: Path, **keywords: Path):
        renames.append(final)
        if len(renames) == 3:  # the tokens, the first of two layers, and then the kill
            raise KeyboardInterrupt
        return plain(final, **keywords)

    with monkeypatch.context() as patch:
        patch.setattr(artifacts, "publish", killed)
        with pytest.raises(KeyboardInterrupt):
            run_steps(steps(), runtime(tmp_path))
    assert [step.is_finished(tmp_path / "store") for step in steps()] == [True, True, False]
    assert {outcome.state for outcome in run_steps(steps(), runtime(tmp_path))} == {"reused"}
    assert len(calls) == 2
    for step in steps():
        artifacts.verify(step.folder(tmp_path / "store"))
