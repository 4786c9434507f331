"""The rules of the house that a tool can watch: sizes, names, mirrored tests."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "src" / "crossdiff").rglob("*.py"))
FUNCTION_LINES, FILE_LINES, FEWEST_LINES = 40, 250, 25


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT / "src" / "crossdiff")))
def test_files_and_functions_fit_a_screen(path: Path) -> None:
    text = path.read_text()
    assert len(text.splitlines()) <= FILE_LINES
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno + 1 > FUNCTION_LINES
    ]
    assert long == []


def test_no_module_is_a_crumb() -> None:
    modules = [path for path in SOURCES if path.name != "__init__.py"]
    assert [str(path) for path in modules if len(path.read_text().splitlines()) < FEWEST_LINES] == []


def test_there_is_no_drawer() -> None:
    assert [path for path in SOURCES if path.stem in ("utils", "helpers", "misc", "common")] == []


def test_every_test_file_has_its_module() -> None:
    """tests/a/test_b.py stands beside src/crossdiff/a/b.py or b/; the rest are named here."""
    free = {
        "test_keys",
        "test_conf", "test_front_door", "test_house", "test_references",
        "test_command_line", "test_own_input", "test_docs", "test_demo",
        "test_full_disk", "test_odd_inputs", "test_own_activations", "test_odd_crosscoders",
        "test_installed",
        "test_cluster", "test_cluster_nodes", "test_cluster_training", "test_cluster_runs",
        "test_blindness", "test_browser",
    }  # fmt: skip
    strangers = []
    for test in sorted((ROOT / "tests").rglob("test_*.py")):
        if test.parent.name == "bench":
            continue  # of experiments/bench, which is no part of the package
        folder = ROOT / "src" / "crossdiff" / test.parent.relative_to(ROOT / "tests")
        name = test.stem.removeprefix("test_")
        known = (folder / f"{name}.py").exists() or (folder / name).is_dir() or test.stem in free
        if not known:
            strangers.append(str(test.relative_to(ROOT)))
    assert strangers == []


def test_the_page_on_the_layout_names_files_that_exist() -> None:
    """`data/order.py`, or only `write.py` after its folder was named."""
    page = (ROOT / "src" / "crossdiff" / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"`([\w/]+\.py)`", page))
    files = [
        f"/{path.relative_to(ROOT)}" for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")
    ]
    assert named
    assert sorted(name for name in named if not any(file.endswith(f"/{name}") for file in files)) == []


def test_nothing_depends_on_the_shared_folder() -> None:
    kinds = ("*.py", "*.yaml", "*.toml", "*.sh", "Makefile")
    files = [path for kind in kinds for path in ROOT.rglob(kind) if ".venv" not in path.parts]
    marker = "../" + "shared"
    assert [str(path) for path in files if marker in path.read_text(errors="ignore")] == []
