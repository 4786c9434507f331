"""The user's results folders: one per run, filled with the files of its report."""

from __future__ import annotations

import filecmp
import hashlib
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from crossdiff.io.artifacts import MANIFEST
from crossdiff.io.tables import read_json, write_json

SUMMARY = "summary.json"
LONGEST_NAME = 200
"""Most bytes of a folder's name; file systems take 255, with endings."""


def own_folders(folders: Sequence[Path], overrides: Sequence[Sequence[str]]) -> list[Path]:
    """One folder per grid point of a sweep; the settings that differ are added to equal names.

    `overrides` are Hydra's per grid point: `results/custom_4` of `seed=1,2` becomes `results/custom_4_seed_1`
    and `..._2`. Equal grid points share a folder; a hash is added where names differ only in characters that
    a folder cannot have (`a/c`, `a_c`).
    """
    named = []
    for folder, texts in zip(folders, overrides, strict=True):
        sharing = [set(theirs) for other, theirs in zip(folders, overrides, strict=True) if other == folder]
        common = set.intersection(*sharing)
        differing = [text for text in texts if text not in common]
        ending = "".join(f"_{re.sub(r'[^A-Za-z0-9.+-]+', '_', text).strip('_')}" for text in differing)
        named.append((folder, ending, "\n".join(differing)))
    return [
        folder.with_name(_short(folder.name + ending, differing, tell=len(_alike(named, folder, ending)) > 1))
        for folder, ending, differing in named
    ]


def _alike(named: Sequence[tuple[Path, str, str]], folder: Path, ending: str) -> set[str]:
    """Settings of the grid points that share a readable name."""
    return {differing for *name, differing in named if name == [folder, ending]}


def _short(name: str, differing: str, *, tell: bool) -> str:
    """The name, with a hash where it is ambiguous (`tell`) or too long for a file system."""
    if not tell and len(os.fsencode(name)) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(differing.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    cut = os.fsencode(name)[: LONGEST_NAME - 9].decode("utf-8", "ignore")
    return f"{cut}_{digest}"


def check_folder(results: Path) -> None:
    """ValueError unless `results` is, or can become, a folder that can be written."""
    there = next(path for path in (results, *results.absolute().parents) if path.exists())
    if not there.is_dir():
        raise ValueError(
            f"results_dir={results}: {there} is a file, and the report needs a folder; "
            "give another results_dir=..."
        )
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"results_dir={results}: {there} cannot be written; give another results_dir=...")


def publish_results(
    report: Path, results: Path, steps: Sequence[dict[str, Any]], *, store: Path | None = None
) -> Path:
    """Copy the report artifact's files to `results`, add `steps` and `files` to its summary; return the page.

    `steps` holds `{name, key, state, seconds}` of this run, `files` the copied names. `store` is noted
    relative to `results`, so that both can be moved together. Files of another run's report are removed, and
    files of the same names that no run wrote are renamed, with a notice.
    """
    results.mkdir(parents=True, exist_ok=True)
    summary = read_json(report / SUMMARY)
    files = sorted(path.name for path in report.iterdir() if path.is_file() and path.name != MANIFEST)
    earlier = _earlier(results)
    if earlier is not None:
        _clear_other_run(results, earlier, steps)
    _set_aside(results, report, files, earlier)
    for name in files:
        if name != SUMMARY:
            aside = results / f".{name}.part"
            shutil.copyfile(report / name, aside)
            os.replace(aside, results / name)
    place = {} if store is None else {"store": os.path.relpath(store, results)}
    write_json({**summary, "steps": list(steps), "files": files, **place}, results / SUMMARY)
    return results / "report.html"


def _earlier(results: Path) -> dict[str, Any] | None:
    """The summary that a run has left in the folder; None where there is none, or another tool's."""
    try:
        earlier = read_json(results / SUMMARY)
    except (OSError, ValueError):
        return None
    return earlier if isinstance(earlier, dict) and isinstance(earlier.get("steps"), list) else None


def _set_aside(results: Path, report: Path, names: Sequence[str], earlier: Mapping[str, Any] | None) -> None:
    """Rename files that would be overwritten with other content and that no earlier run lists as its own."""
    listed = [] if earlier is None else earlier.get("files", names)
    for path in (results / name for name in names if name not in listed):
        if path.is_file() and not filecmp.cmp(path, report / path.name, shallow=False):
            kept, number = path.with_name(f"{path.name}.before"), 1
            while kept.exists():
                number += 1
                kept = path.with_name(f"{path.name}.before{number}")
            os.replace(path, kept)
            print(f"note: {path} is of no run here and was in the way; it is now {kept.name}", flush=True)


def _clear_other_run(results: Path, earlier: Mapping[str, Any], steps: Sequence[dict[str, Any]]) -> None:
    """Remove the files that the summary of another run's report lists."""
    try:
        former, files = earlier["steps"][-1]["key"], [str(name) for name in earlier.get("files", [])]
        names = [str(step["name"]) for step in earlier["steps"]]
    except (KeyError, IndexError, TypeError):
        return
    if not steps or former == steps[-1]["key"]:
        return
    for name in (*files, "steps.csv", *(f"metrics.{name.removeprefix('train ')}.csv" for name in names)):
        if Path(name).name == name:
            (results / name).unlink(missing_ok=True)
    print(
        f"note: {results} held the report of another run ({former}), which this one replaces; its steps stay "
        "in the store, and name=... or results_dir=... keeps both",
        flush=True,
    )
