"""Experiments composed from `conf/` as the command line composes them."""

from functools import cache

from hydra import compose, initialize_config_dir

from crossdiff import config
from crossdiff.io.environment import conf_dir


@cache
def experiment(*overrides: str) -> config.Experiment:
    """The typed experiment of `python run.py *overrides`."""
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return config.load(compose("config", overrides=list(overrides)))
