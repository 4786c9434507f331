"""The command line as a user meets it: help, plans, messages, exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from crossdiff.__main__ import arranged, guarded, user_message

ROOT = Path(__file__).resolve().parents[1]


def crossdiff(*arguments: str, cwd: Path = ROOT, timeout: float = 300) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, str(ROOT / "run.py"), *arguments],
        cwd=cwd, capture_output=True, text=True, timeout=timeout,
        env=os.environ | {"CUDA_VISIBLE_DEVICES": "", "ANTHROPIC_API_KEY": ""},
    )  # fmt: skip


def test_help_starts_with_what_to_type() -> None:
    shown = crossdiff("--help")
    assert shown.returncode == 0
    assert "experiment=demo" in shown.stdout[:800]
    assert "model_pair: custom, it_simpo" in shown.stdout
    assert "dictionary=toy training=toy sparsity=toy device=cpu" in shown.stdout


def test_a_paper_scale_run_without_an_accelerator_stops_with_its_cost(tmp_path: Path) -> None:
    done = crossdiff("comparison=it_vs_simpo", "layer=20", f"store={tmp_path}/store")
    assert done.returncode == 2
    for part in ("harvest simpo", "GPU-hours", "experiment=demo", "device=cpu", "dispatch=slurm"):
        assert part in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_plan_runs_nothing(tmp_path: Path) -> None:
    done = crossdiff("experiment=demo", "plan=true", f"store={tmp_path}/store")
    assert done.returncode == 0
    assert "report demo" in done.stdout
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["model_pair=pt_simp", "layer=20"], ["did you mean", "pt_simpo"]),
        (["model_pair=pt_simpo", "layer=20", "device=cuda"], ["device=cuda", "device=cpu"]),
        (["experiment=demo", "store=README.md"], ["store=README.md", "cannot be written"]),
        (["experiment=demo", "store="], ["store= is empty", "name a folder"]),
        (["experiment=demo", "results_dir="], ["results_dir= is empty", "name a folder"]),
        (["experiment=demo", "name=../x"], ["name='../x'", "without '/'", "results_dir=..."]),
        (["model_pair=pt_it"], ["layer has no value", "layer=20"]),
        (["model_pair=custom", "layer=1"], ["model_pair.base has no value", "give model_pair.base=..."]),
        (["experiment=demo", "annotator=claude"], ["ANTHROPIC_API_KEY is not set", "annotator=lexical"]),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(arguments: list[str], parts: list[str]) -> None:
    done = crossdiff(*arguments)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert [part for part in parts if part not in done.stderr] == [], done.stderr


def test_the_package_runs_outside_the_checkout(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "crossdiff", "experiment=demo", "action=plan"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "report demo" in done.stdout


def test_a_full_disk_names_the_way_out() -> None:
    for error in (
        OSError(28, "No space left on device", "/store/x"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ):
        message = user_message(error)
        assert message is not None
        assert "store=" in message


def test_a_disk_that_is_full_of_everything_still_ends_in_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python then has no folder for temporary files and says so with an error of its own."""
    nothing = FileNotFoundError(2, "No usable temporary directory found in ['/tmp', '/work']")

    def full() -> str:
        raise nothing

    monkeypatch.setattr("tempfile.gettempdir", full)
    for name in ("/store/x", b"/store/x"):
        assert "(/store/x)" in str(user_message(OSError(28, "No space left on device", name)))
    assert "(store)" in str(user_message(OSError(28, "No space left on device", 5)))
    assert "TMPDIR=..." in str(user_message(nothing))


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1024 bytes."),
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_names_what_to_make_smaller(error: Exception) -> None:
    message = user_message(error)
    assert message is not None
    assert message.startswith("out of memory (")
    assert "dictionary.n_latents or training.batch_size" in message


@pytest.mark.parametrize("inside", [False, True])
def test_what_cannot_be_read_is_not_called_unwritable(
    inside: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may read everything, so what the system answers is put in its place."""
    file = tmp_path / "secret.jsonl"
    file.write_text("{}")
    closed = tmp_path if inside else file
    exists, access = os.path.exists, os.access
    monkeypatch.setattr(os.path, "exists", lambda path: exists(path) and not (inside and path == file))
    monkeypatch.setattr(os, "access", lambda path, mode: path != closed and access(path, mode))
    message = user_message(PermissionError(13, "Permission denied", str(file)))
    assert message is not None
    assert f"{closed} cannot be read" in message
    assert f"chmod {'u+rx' if inside else 'u+r'} {closed}" in message


def test_what_cannot_be_written_names_the_store(tmp_path: Path) -> None:
    message = user_message(PermissionError(13, "Permission denied", str(tmp_path / "store" / "x")))
    assert message is not None
    assert "cannot be written" in message
    assert "store=..." in message


def test_a_plan_of_a_sweep_leaves_no_folder(tmp_path: Path) -> None:
    grid = ("-m", "model_pair=toy_pt_it", "corpus=toy", "layer=1,2", "action=plan")
    done = crossdiff(*grid, f"store={tmp_path}/store")
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_a_sweep_leaves_what_others_put_there(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("kept")
    grid = ("-m", "model_pair=toy_pt_it", "corpus=toy", "layer=1,2", "action=plan")
    done = crossdiff(*grid, f"store={tmp_path}/store", f"hydra.sweep.dir={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_value_error_of_a_library_is_a_bug_not_a_message() -> None:
    def fails() -> int:
        return int("no number")

    assert user_message(_raised(fails)) is None


def test_ctrl_c_says_how_to_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    def interrupted() -> int:
        raise KeyboardInterrupt

    assert guarded(interrupted) == 130
    assert "the same command continues" in capsys.readouterr().err


def _raised(function) -> BaseException:
    with pytest.raises(ValueError) as caught:  # noqa: PT011
        function()
    return caught.value


@pytest.mark.slow
@pytest.mark.parametrize("launcher", ["submitit_local", "joblib"])
def test_hydras_own_launchers_plan_whole_grid_points(launcher: str, tmp_path: Path) -> None:
    grid = ("model_pair=toy_pt_it,toy_pt_simpo", "layer=1", "organism=demo", "corpus=toy", "dictionary=toy")
    rest = ("sparsity=toy", "training=demo", f"store={tmp_path}/store", "action=plan")
    done = crossdiff("-m", f"hydra/launcher={launcher}", *grid, *rest)
    assert done.returncode == 0, done.stderr
    logs = [path.read_text() for path in (tmp_path / "store" / "sweeps").rglob("*_log.out")]
    told = done.stdout + "".join(logs)
    assert told.count("0 of 9 steps finished") == 2


COUNTED = """
import sys
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from crossdiff.__main__ import main
compose, calls = ConfigLoaderImpl.load_sweep_config, []
ConfigLoaderImpl.load_sweep_config = lambda *args, **named: calls.append(1) or compose(*args, **named)
try:
    main()
finally:
    print("composed", len(calls))
"""


def test_the_files_of_a_choice_of_groups_are_composed_once(tmp_path: Path) -> None:
    grid = ["-m", "model_pair=toy_pt_it,toy_pt_simpo", "layer=1,2", "corpus=toy", "action=plan"]
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, *grid, f"store={tmp_path}/store"],
        cwd=tmp_path, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1] == "composed 2", done.stderr  # four points, two pairs


OWN_PATHS = ("model_pair=custom", "model_pair.base=/x", "model_pair.tuned=/y", "layer=1", "action=plan")


@pytest.mark.parametrize(
    ("argument", "way_out"),
    [
        ("model_pair.base=/a=b/c", """'model_pair.base="/a=b/c"'"""),
        ("model_pair.base=/a,b/c", """'model_pair.base="/a,b/c"'"""),
        ("model_pair.base=/a#b", """'model_pair.base="/a#b"'"""),
        ("corpus.paths=[/ä,/b c]", """'corpus.paths=["/ä","/b c"]'"""),
    ],
)
def test_a_path_with_odd_letters_says_how_to_quote_it(
    argument: str, way_out: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra.core.global_hydra import GlobalHydra

    from crossdiff import __main__ as command_line

    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["run.py", *OWN_PATHS, argument])
    assert guarded(command_line._run) == 2
    message = capsys.readouterr().err
    assert way_out in message
    assert len(message.splitlines()) == 1


def test_folders_of_ones_own_are_not_read_with_the_papers_corpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.actions.test_run import typed

    for name in ("base", "old", "new"):
        (tmp_path / name).mkdir()
        config = {"hidden_size": 32, "num_hidden_layers": 3, "name": name}
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    mine = tmp_path / "conf" / "comparison" / "mine.yaml"
    mine.parent.mkdir(parents=True)
    made = "_target_: crossdiff.models.pair.custom_pair"
    pairs = [
        f"{role}: {{{made}, name: {name}, base: {tmp_path}/base, tuned: {tmp_path}/{name}}}"
        for role, name in (("reference", "old"), ("treatment", "new"))
    ]
    mine.write_text("\n".join(["_target_: crossdiff.config.Comparison", *pairs]))
    command = ("--config-dir", f"{tmp_path}/conf", "comparison=mine", "layer=1", "action=plan")
    assert typed(monkeypatch, *command) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"error: {tmp_path}/base is a local model and no corpus is given")
    assert "corpus=files 'corpus.paths=[folder]'" in message
    assert typed(monkeypatch, *command, "corpus=fineweb_lmsys_200m", f"store={tmp_path}/store") == 0


def test_home_is_written_out_and_a_sweep_may_be_asked_for_in_mid_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    given = ["model_pair.base=~/x", "-m", "corpus.paths=[~/a,~/b]", "layer=1,2", "~comparison", "name=a~b"]
    assert arranged(given) == [
        "-m", "model_pair.base=/home/me/x", "corpus.paths=[/home/me/a,/home/me/b]", "layer=1,2",
        "~comparison", "name=a~b",
    ]  # fmt: skip


def test_the_version_is_the_packages() -> None:
    import crossdiff as package

    assert crossdiff("--version").stdout == f"crossdiff {package.__version__}\n"


def test_a_python_without_the_packages_says_how_to_get_them() -> None:
    done = subprocess.run([sys.executable, "-S", "run.py"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "make setup" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_installed_command_is_called_by_its_name(monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    from crossdiff.statistics.seed_null import load_seed_null

    monkeypatch.setattr(sys, "argv", ["/env/bin/crossdiff"])
    assert guarded(lambda: load_seed_null("/nowhere")) == 2
    message = capsys.readouterr().err
    assert "run.py" not in message
    assert "crossdiff experiment=seed_null" in message


def test_the_help_of_an_installed_command_calls_it_by_its_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from hydra.core.global_hydra import GlobalHydra

    from crossdiff import __main__ as command_line

    GlobalHydra.instance().clear()
    monkeypatch.setattr(sys, "argv", ["/env/bin/crossdiff", "--help"])
    with pytest.raises(SystemExit):
        command_line._run()
    shown = capsys.readouterr().out
    assert "crossdiff experiment=demo  " in shown
    assert "python run.py" not in shown


@pytest.mark.parametrize("unbuffered", [[], ["-u"]])
def test_a_reader_that_ends_first_leaves_no_traceback(unbuffered: list[str], tmp_path: Path) -> None:
    given = [str(ROOT / "run.py"), "experiment=demo", "action=plan", f"store={tmp_path}"]
    program = [sys.executable, *unbuffered, *given]
    with subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141
