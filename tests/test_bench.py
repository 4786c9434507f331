from __future__ import annotations

from pathlib import Path

import pytest

from crossdiff.bench import benchmarks, run


def test_every_module_with_a_main_is_offered() -> None:
    assert {"step", "harvest", "scale"} <= set(benchmarks())


@pytest.mark.parametrize("arguments", [[], ["speed"], ["scale", "fast"]])
def test_what_is_not_understood_is_answered_with_the_choices(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["bench", *arguments])
    with pytest.raises(ValueError, match=r"choose one of|key=value"):
        run()


def test_an_installed_package_says_where_the_benchmarks_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no benchmarks"):
        run(tmp_path)
