"""`python -m crossdiff.bench step|harvest|scale|coverage|... key=value`: one benchmark, one JSON object."""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path

from crossdiff.__main__ import guarded


def benchmarks() -> list[str]:
    """The modules of this package that have a `main(overrides)`."""
    modules = sorted(Path(__file__).parent.glob("*.py"))
    return [path.stem for path in modules if path.stem != "__main__" and "\ndef main(" in path.read_text()]


def run() -> int:
    """Run the benchmark that the first argument names and print its figures."""
    name, *overrides = sys.argv[1:] or [""]
    if name not in benchmarks():
        raise ValueError(f"{name or 'nothing'} is no benchmark; choose one of {', '.join(benchmarks())}")
    loose = [item for item in overrides if "=" not in item]
    if loose:
        raise ValueError(f"{loose[0]} is no setting; settings are key=value, as in rounds=5")
    print(json.dumps(import_module(f"crossdiff.bench.{name}").main(overrides)))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(run))
