"""crossdiff from a checkout: `python run.py experiment=demo`, `python run.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

try:
    import hydra  # noqa: F401  the first package that is missing outside the environment
except ModuleNotFoundError:
    print(
        "error: crossdiff's packages are not installed in this Python; "
        "run `make setup` once, then `source .venv/bin/activate`",
        file=sys.stderr,
    )
    sys.exit(2)

from crossdiff.__main__ import main

if __name__ == "__main__":
    main()
