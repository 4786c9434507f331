"""Names of modules that have moved go on importing, as the same module."""

import importlib

import pytest

from crossdiff.moved import MOVED


@pytest.mark.parametrize("old", MOVED)
def test_an_old_name_is_the_same_module(old: str) -> None:
    new = importlib.import_module(f"crossdiff.{MOVED[old]}")
    assert importlib.import_module(f"crossdiff.{old}") is new
    assert new.__name__ == new.__spec__.name == f"crossdiff.{MOVED[old]}"
