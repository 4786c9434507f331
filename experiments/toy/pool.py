"""Pool toy runs: python experiments/toy/pool.py results/toy_seed* (prints a table and JSON)."""

import json
import sys
from pathlib import Path

from crossdiff.io.tables import read_deltas
from crossdiff.statistics.pooling import pooled_recovery, read_run


def main(folders: list[str]) -> None:
    """Print the table of the runs and the pooled figures."""
    runs = []
    print("| run | labelled | in categories | Spearman | gain | keep | loss | FVE base / tuned | L0 | dead |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for folder in map(Path, folders):
        summary = json.loads((folder / "summary.json").read_text())
        runs.append(read_run(read_deltas(folder / "deltas.csv"), summary["comparison"]["planted"]))
        alone = pooled_recovery(runs[-1:], draws=200)
        pairs = list(summary["pairs"].values())
        changes = " | ".join(
            f"{group['counts'][0]} -> {group['counts'][1]} ({group['change']:+.0%})"
            for group in (alone["groups"][name] for name in ("gain", "keep", "loss"))
        )
        labelled = " / ".join(str(pair["n_labelled"]) for pair in pairs)
        in_categories = " / ".join(str(pair["n_in_categories"]) for pair in pairs)
        fve = " / ".join(f"{min(pair[key] for pair in pairs):.3f}" for key in ("fve_base", "fve_tuned"))
        l0 = " / ".join(f"{pair['l0']:.1f}" for pair in pairs)
        dead = max(pair["dead_share"] for pair in pairs)
        rho = alone["spearman"]["rho"]
        print(
            f"| {folder.name} | {labelled} | {in_categories} | {rho:.2f} | {changes} | {fve} | {l0} "
            f"| {dead:.1%} |"
        )
    print(json.dumps(pooled_recovery(runs), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
