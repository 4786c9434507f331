"""Shapes in core's signatures are checked at run time in every test; no test reaches a network account."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
for name in [name for name in os.environ if name.startswith("ANTHROPIC_")]:
    del os.environ[name]

from jaxtyping import install_import_hook  # noqa: E402

install_import_hook("crossdiff.core", "beartype.beartype")
