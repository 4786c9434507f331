"""Check what `make demo` left: python .ci/check_demo.py results/demo [--reused]."""

import json
import sys
from pathlib import Path

import pandas as pd

LIMITS = {"fve_base": 0.9, "fve_tuned": 0.9, "n_in_categories": 60}


def main() -> None:
    """Exit with the list of what does not hold."""
    folder, reused = Path(sys.argv[1]), "--reused" in sys.argv
    summary = json.loads((folder / "summary.json").read_text())
    failures = [] if (folder / "report.html").stat().st_size > 100_000 else ["report.html is too small"]
    for name, pair in summary["pairs"].items():
        failures += [
            f"{name}: {key}={pair[key]} < {low}" for key, low in LIMITS.items() if not pair[key] >= low
        ]
        if not pair["dead_share"] <= 0.2:
            failures.append(f"{name}: dead_share={pair['dead_share']} > 0.2")
        if not abs(pair["l0"] / pair["k"] - 1) <= 0.2:
            failures.append(f"{name}: l0={pair['l0']} is not within 20 % of k={pair['k']}")
        latents = pd.read_parquet(folder / f"latents.{name}.parquet")
        if len(latents) != pair["n_latents"]:
            failures.append(f"{name}: {len(latents)} rows for {pair['n_latents']} latents")
    deltas = pd.read_csv(folder / "deltas.csv")
    if (deltas.level == "category").sum() < 30 or (deltas.level == "class").sum() < 7:
        failures.append("deltas.csv lacks categories or classes")
    comparison = summary["comparison"]
    if not comparison or len(comparison["planted"]) != 30 or len(comparison["recovered"]) != 30:
        failures.append("summary.json does not set 30 recovered changes beside 30 planted ones")
    states = {step["state"] for step in summary["steps"]}
    if reused and states != {"reused"}:
        failures.append(f"the second run computed steps again: {states}")
    for failure in failures:
        print(f"demo: {failure}", file=sys.stderr)
    print(f"demo: {'FAILED' if failures else 'as it should be'}")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
