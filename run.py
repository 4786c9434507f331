"""crossdiff from a checkout: `python run.py experiment=demo`, `python run.py --help`."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "src"))

from crossdiff.__main__ import main

if __name__ == "__main__":
    main()
