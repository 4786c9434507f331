"""The package as the wheel lays it out, away from the checkout: commands, exports, imports and Python."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.model_folders import save_model

ROOT = Path(__file__).resolve().parents[1]
WORDS = "the model said that a small answer is often better than a long one and we agree".split()
DRIVER = """
import sys
from pathlib import Path
import crossdiff
from crossdiff import __main__ as command_line

assert Path(crossdiff.__file__).is_relative_to(sys.argv[1]), crossdiff.__file__
given = sys.argv[2:]

def typed(*arguments):
    sys.argv = ["crossdiff", *given, *arguments]
    return command_line.guarded(command_line._run)

assert typed() == 0
assert typed("action=ask", "ask.text=the model said", "ask.n=2") == 0
for form in ("crossdiff", "dictionary_learning", "saelens"):
    out = ("action=export", "export.what=checkpoint", f"export.format={form}", f"export.folder={form}")
    assert typed(*out) == 0
    assert typed(f"crosscoder={form}/custom_1", "action=train") == 0
assert typed("action=export", "export.what=checkpoint", "export.format=neelnanda") == 2
run = crossdiff.open_run("results/custom_1")
diff = crossdiff.open_pair("models/base", "models/tuned", 1, "saelens/custom_1", dtype="float32")
own, read = (pair.encode("the model said that").table for pair in (run.open_pair("custom"), diff))
assert own["latent"].tolist() == read["latent"].tolist() and len(own)
print(run.latents("custom").shape, len(run.figure("nu").data), crossdiff.diff.__module__)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for `sys.path` with what pyproject.toml says that the wheel holds."""
    site = tmp_path_factory.mktemp("installed") / "site-packages"
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    inside = {name: Path(name).name for name in wheel["packages"]} | wheel["force-include"]
    for source, target in inside.items():
        shutil.copytree(ROOT / source, site / target, ignore=shutil.ignore_patterns("__pycache__"))
    return site


def python(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=folder, capture_output=True, text=True, timeout=600, check=False,
        env=os.environ | {"PYTHONPATH": str(site)},
    )  # fmt: skip


@pytest.mark.slow
def test_an_installed_package_runs_asks_exports_and_imports(site: Path, tmp_path: Path) -> None:
    for seed, name in enumerate(("base", "tuned")):
        save_model(tmp_path / "models" / name, "llama", seed=seed)
    texts = (" ".join(WORDS[(i * 7 + step * 3) % len(WORDS)] for step in range(30)) for i in range(60))
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    given = [
        "model_pair=custom", "model_pair.base=models/base", "model_pair.tuned=models/tuned", "layer=1",
        "model_pair.dtype=float32", "corpus=files", "corpus.paths=[texts.jsonl]", "dictionary=toy",
        "draws=100", "dictionary.n_latents=64", "sparsity=toy", "sparsity.k=8", "sparsity.k_initial=16",
        "training=toy", "sparsity.anneal_steps=5", "training.n_steps=20", "training.batch_size=128",
        "training.warmup_steps=2", "device=cpu", "progress=false",
    ]  # fmt: skip
    done = python(site, tmp_path, "-c", DRIVER, str(site), *given)
    assert done.returncode == 0, done.stderr
    assert "code " in done.stdout
    assert "(64, " in done.stdout
    assert "no threshold, and this one keeps codes above" in done.stderr


def test_help_of_an_installed_package_names_what_can_be_brought_and_taken(site: Path, tmp_path: Path) -> None:
    done = python(site, tmp_path, "-m", "crossdiff", "--help")
    assert done.returncode == 0, done.stderr
    for part in (
        "action=ask", "crosscoder=", "source=files", "export.format=saelens", "open_run", "open_pair", "diff",
    ):  # fmt: skip
        assert part in done.stdout
