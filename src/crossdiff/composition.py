"""How Hydra composes: what a sweep asks of it, and three shortcuts that leave every composed value as it is.

Hydra has no public place for the shortcuts, so methods of its own classes are replaced for this process.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf


def composed(folder: str, overrides: Sequence[str], values: Mapping[str, Any]) -> DictConfig:
    """What the command line composes from `folder`, with `values` (nested) put in as they are.

    Hydra has one state per process: one that the caller's program is using is put back.
    """
    former, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(folder, version_base="1.3"):
            cfg = compose("config", overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = former
    for key, value in values.items():
        OmegaConf.update(cfg, key, value, merge=True)
    return cfg


def runs_alone(hydra: Any) -> bool:
    """True inside a job of a launcher that is not Hydra's own in-process one (submitit, joblib).

    Everything else is planned together: a single run, or all grid points of a sweep.
    """
    sweeping = hydra.mode == RunMode.MULTIRUN
    return sweeping and not hydra.launcher["_target_"].endswith("BasicLauncher")


def sweep_folders(hydra: Any) -> list[Path]:
    """The folder that Hydra has made for a sweep; none for a single run."""
    return [Path(hydra.sweep.dir)] if hydra.mode == RunMode.MULTIRUN else []


def _itself(self: ConfigStore, memo: dict[int, Any]) -> ConfigStore:
    return self


ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]
# Hydra copies its registry of options whole for every composition and for every line of --help (5 of 6 s).
# Nothing is lost: the registry is a singleton, and what it gives out are copies.


def shorten_sweeps() -> None:
    """Compose every grid point once, and what the points share once for all of them."""
    _validate_while_composing()
    _share_groups()


def _validate_while_composing() -> None:
    """Keep Hydra's sweeper from composing every point twice: our own loop reports the same errors.

    The method of the base class is replaced, and the launcher recognised by its name, because Hydra imports
    its own plugins a second time under the same names.
    """
    validate = Sweeper.validate_batch_is_legal

    def only_for_other_launchers(self: Any, batch: Any) -> None:
        if type(self.launcher).__name__ != "BasicLauncher":
            validate(self, batch)

    Sweeper.validate_batch_is_legal = only_for_other_launchers


def _share_groups() -> None:
    """Read and merge the files of a choice of groups once, not for every point (60 % of a sweep's planning).

    Hydra applies `key=value` to the merged files, so points that choose the same groups differ only in that
    last step. A search path of the user's can add groups that are unknown here: then Hydra's own way is kept.
    """
    whole = ConfigLoaderImpl.load_sweep_config
    merged: dict[tuple[str, ...], DictConfig] = {}

    def load_sweep_config(
        self: ConfigLoaderImpl, master_config: DictConfig, sweep_overrides: list[str]
    ) -> DictConfig:
        if OmegaConf.select(master_config, "hydra.searchpath"):
            return whole(self, master_config, sweep_overrides)
        overrides = OverridesParser.create().parse_overrides(overrides=sweep_overrides)
        values = [override for override in overrides if _sets_a_value(override, self)]
        groups = tuple(str(override.input_line) for override in overrides if override not in values)
        if groups not in merged:
            merged[groups] = whole(self, master_config, list(groups))
        point = copy.deepcopy(merged[groups])
        ConfigLoaderImpl._apply_overrides_to_config(values, point)
        _write_down(point, overrides)
        OmegaConf.copy_cache(from_config=master_config, to_config=point)
        return point

    ConfigLoaderImpl.load_sweep_config = load_sweep_config


def _sets_a_value(override: Override, loader: ConfigLoaderImpl) -> bool:
    """True for a plain `key=value` of the run; groups, `+key`, `~key` and `hydra.key` stay with Hydra."""
    plain = override.type == OverrideType.CHANGE and not override.is_hydra_override()
    return plain and not loader.repository.group_exists(override.key_or_group)


def _write_down(point: DictConfig, overrides: Sequence[Override]) -> None:
    """The overrides of this point where Hydra notes them."""
    of_the_run = [override for override in overrides if not override.is_hydra_override()]
    point.hydra.overrides.task = [override.input_line for override in of_the_run]
    style = point.hydra.job.config.override_dirname
    point.hydra.job.override_dirname = get_overrides_dirname(
        overrides=of_the_run,
        kv_sep=style.kv_sep,
        item_sep=style.item_sep,
        exclude_keys=style.exclude_keys,
    )
