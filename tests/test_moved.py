"""Names of modules that have moved go on importing, as the same module."""

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

import crossdiff
from crossdiff.moved import MOVED

ROOT = Path(crossdiff.__path__[0])


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_same_module(old: str) -> None:
    new = importlib.import_module(f"crossdiff.{MOVED[old]}")
    assert importlib.import_module(f"crossdiff.{old}") is new
    assert new.__name__ == new.__spec__.name == f"crossdiff.{MOVED[old]}"


def test_an_old_name_hides_no_file() -> None:
    files = [ROOT / old.replace(".", "/") for old in MOVED]
    assert not [
        file
        for file in files
        if file.with_name(f"{file.name}.py").exists() or (file / "__init__.py").exists()
    ]


def test_a_folder_that_git_left_does_not_hide_the_new_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "behaviour" / "__pycache__").mkdir(parents=True)
    monkeypatch.setattr(crossdiff, "__path__", [str(ROOT), str(tmp_path)])
    monkeypatch.delitem(sys.modules, "crossdiff.behaviour", raising=False)
    assert importlib.import_module("crossdiff.behaviour").__name__ == "crossdiff.studies.behaviour"


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_hides_nothing_of_its_package(old: str) -> None:
    """Importing `a.b` sets `b` on the package `a`, and would hide a function of that name for good."""
    folder, _, name = f"crossdiff.{old}".rpartition(".")
    try:
        package = importlib.import_module(folder)
    except ModuleNotFoundError:
        return
    assert isinstance(getattr(package, name, None), ModuleType | None)
