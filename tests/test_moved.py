"""Names of modules that have moved go on importing, as the same module."""

import importlib
from types import ModuleType

import pytest

from crossdiff.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_same_module(old: str) -> None:
    new = importlib.import_module(f"crossdiff.{MOVED[old]}")
    assert importlib.import_module(f"crossdiff.{old}") is new
    assert new.__name__ == new.__spec__.name == f"crossdiff.{MOVED[old]}"


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_hides_nothing_of_its_package(old: str) -> None:
    """Importing `a.b` sets `b` on the package `a`, and would hide a function of that name for good."""
    folder, _, name = f"crossdiff.{old}".rpartition(".")
    try:
        package = importlib.import_module(folder)
    except ModuleNotFoundError:
        return
    assert isinstance(getattr(package, name, None), ModuleType | None)
