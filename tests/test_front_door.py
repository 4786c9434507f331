"""`--help` and `action=plan` answer without loading what only work needs."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WORK = (
    "torch", "pandas", "scipy", "transformers", "pytorch_lightning", "wandb", "submitit", "anthropic",
    "requests", "rich", "plotly", "tqdm",
)  # fmt: skip
ARRAYS = ("numpy", "jaxtyping")
SETTINGS = "crossdiff.config"
"""The typed settings, which `--help` shows without building them."""
PROGRAM = """
import sys
sys.argv = ["crossdiff", *sys.argv[2:]]
from crossdiff.__main__ import main
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
finally:
    with open(NAMES, "w") as file:
        file.write(" ".join(sorted({name.partition(".")[0] for name in sys.modules} | set(sys.modules))))
"""


@pytest.mark.parametrize(
    ("arguments", "forbidden"),
    [
        (["--help"], (*WORK, *ARRAYS, SETTINGS)),
        (["comparison=it_vs_simpo", "layer=20", "action=plan"], (*WORK, *ARRAYS)),
        (["experiment=demo", "action=plan"], (*WORK, *ARRAYS)),
        (["experiment=paper", "action=plan"], (*WORK, *ARRAYS)),
    ],
    ids=["help", "comparison", "demo", "study"],
)
def test_looking_loads_no_library_of_the_work(
    tmp_path: Path, arguments: list[str], forbidden: tuple[str, ...]
) -> None:
    names = tmp_path / "names.txt"
    program = PROGRAM.replace("NAMES", repr(str(names)))
    given = arguments if arguments == ["--help"] else [*arguments, f"store={tmp_path}/store"]
    done = subprocess.run(
        [sys.executable, "-c", program, "-", *given], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert sorted(set(names.read_text().split()) & set(forbidden)) == []


def test_no_settings_class_and_no_stage_loads_a_library_of_the_work(tmp_path: Path) -> None:
    """Every `_target_` of conf/ and every stage of the package, studies included (numpy aside)."""
    targets = {
        name
        for path in (ROOT / "conf").rglob("*.yaml")
        for name in re.findall(r"_target_: (crossdiff\.[\w.]+)\.\w+", path.read_text(encoding="utf-8"))
    }
    program = (
        "import importlib, sys\nfrom crossdiff.stages import protocol\n"
        f"for name in sorted({targets!r} | set(protocol.modules().values())): importlib.import_module(name)\n"
        f"print(*sorted(set({WORK!r}) & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
    assert len(targets) > 20
