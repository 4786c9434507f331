"""`python -m crossdiff.bench step|harvest|scale|coverage|... key=value`: one benchmark, one JSON object.

The benchmarks lie in a checkout's `experiments/bench/`; the installed package has none.
"""

from __future__ import annotations

import json
import os
import sys
from importlib import import_module
from pathlib import Path

from crossdiff.__main__ import guarded

CHECKOUT = Path(__file__).resolve().parents[2]


def benchmarks(checkout: Path = CHECKOUT) -> list[str]:
    """The modules of `experiments/bench` that have a `main(overrides)`."""
    modules = sorted((checkout / "experiments" / "bench").glob("*.py"))
    return [path.stem for path in modules if "\ndef main(" in path.read_text(encoding="utf-8")]


def run(checkout: Path = CHECKOUT) -> int:
    """Run the benchmark that the first argument names and print its figures."""
    name, *overrides = sys.argv[1:] or [""]
    offered = benchmarks(checkout)
    if not offered:
        raise ValueError(
            f"{checkout} has no experiments/bench: the installed package has no benchmarks; clone crossdiff "
            "and run this command there"
        )
    if name not in offered:
        raise ValueError(f"{name or 'nothing'} is no benchmark; choose one of {', '.join(offered)}")
    loose = [item for item in overrides if "=" not in item]
    if loose:
        raise ValueError(f"{loose[0]} is no setting; settings are key=value, as in rounds=5")
    sys.path.insert(0, str(checkout))
    paths = [str(checkout), str(checkout / "src"), *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)  # for benchmarks that start processes
    print(json.dumps(import_module(f"experiments.bench.{name}").main(overrides)))
    return 0


if __name__ == "__main__":
    sys.exit(guarded(run))
