"""How Hydra composes single runs and sweeps, with five shortcuts that change no composed value.

Hydra has no public hook for the shortcuts, so they replace methods of its classes in this process.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import omegaconf._utils
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl, get_overrides_dirname
from hydra._internal.hydra import Hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import DictConfig, Node, OmegaConf

from crossdiff.io.environment import command
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Resources

ConfigStore.instance().store(
    group="dispatch/stages",
    name="all",
    node={
        stage: {"_target_": f"{Resources.__module__}.Resources", **dict.fromkeys(Resources.model_fields)}
        for stage in protocol.names()
    },
)  # so that `dispatch.stages.<any stage>.<resource>=` is a setting of conf/dispatch/slurm.yaml


def of_size(_node_: Node) -> Any:
    """`${of_size:}` in a study's file: the value of this setting in `sizes` at the size asked for.

    A size that does not name the setting takes the value of `toy`. A value from the command line replaces
    the interpolation.
    """
    path, block = [str(_node_._key())], _node_._get_parent()
    while isinstance(block, DictConfig) and "sizes" not in block:
        path.insert(0, str(block._key()))
        block = block._get_parent()
    assert isinstance(block, DictConfig)
    root, missing = block._get_root(), object()
    assert isinstance(root, DictConfig)
    for size in (root.size, "toy"):
        value = OmegaConf.select(block, ".".join(["sizes", str(size), *path]), default=missing)
        if value is not missing:
            return value
    raise ValueError(f"study.{'.'.join(path)} has no value in sizes.toy; give it one there")


OmegaConf.register_new_resolver("of_size", of_size, replace=True)
OmegaConf.register_new_resolver("command", command, replace=True)


def composed(folder: str, overrides: Sequence[str], values: Mapping[str, Any] | None = None) -> DictConfig:
    """The configuration that `overrides` compose from `folder`, with `values` (nested) merged in.

    Hydra has one state per process: that of the caller's program is restored.
    """
    former, GlobalHydra.instance().hydra = GlobalHydra.instance().hydra, None
    try:
        with initialize_config_dir(folder, version_base="1.3"):
            cfg = compose("config", overrides=list(overrides))
    finally:
        GlobalHydra.instance().hydra = former
    for key, value in (values or {}).items():
        OmegaConf.update(cfg, key, value, merge=True)
    return cfg


def runs_alone(hydra: Any) -> bool:
    """Whether this is a job of a launcher other than Hydra's in-process one (submitit, joblib).

    A single run, or all grid points of an in-process sweep, are planned together instead.
    """
    sweeping = hydra.mode == RunMode.MULTIRUN
    return sweeping and not hydra.launcher["_target_"].endswith("BasicLauncher")


def sweep_folders(hydra: Any) -> list[Path]:
    """The folder that Hydra has made for a sweep; none for a single run."""
    return [Path(hydra.sweep.dir)] if hydra.mode == RunMode.MULTIRUN else []


def _itself(self: ConfigStore, memo: dict[int, Any]) -> ConfigStore:
    return self


ConfigStore.__deepcopy__ = _itself  # type: ignore[attr-defined]
# Hydra copies its whole registry of options for every composition and every line of --help (5 of 6 s).
# One registry is enough: it is a singleton and gives out copies.

_loader_in_python = omegaconf._utils.get_yaml_loader


@cache
def _loader_in_c() -> type:
    """OmegaConf's reader of option files on libyaml's parser (0.2 s of a command)."""
    return type("Loader", (yaml.CSafeLoader, _loader_in_python()), {})


if yaml.__with_libyaml__:
    omegaconf._utils.get_yaml_loader = _loader_in_c


def shorten_commands(conf: Path) -> None:
    """Compose a single run once, and the shared part of a sweep's points once."""
    _compose_single_runs_once(conf)
    _validate_while_composing()
    _share_groups()


def _compose_single_runs_once(conf: Path) -> None:
    """Skip the composition that only looks for `hydra.mode` in option files, where none can set it."""
    asked = Hydra.get_mode

    def get_mode(self: Hydra, config_name: str | None, overrides: list[str]) -> Any:
        ours = [source.path for source in self.config_loader.get_sources() if source.scheme() == "file"]
        if any("hydra" in text for text in overrides) or ours != [str(conf)] or _sets_hydra(conf):
            return asked(self, config_name, overrides)
        return None

    Hydra.get_mode = get_mode


def _sets_hydra(conf: Path) -> bool:
    """Whether an option file may set the mode, or name a further folder of options."""
    words = ("MULTIRUN", "searchpath", "mode: RUN")
    texts = (path.read_text(encoding="utf-8", errors="replace") for path in conf.rglob("*.yaml"))
    return any(word in text for text in texts for word in words)


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
    last step. A search path can add groups that are unknown here, so Hydra's method handles it.
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
        if any(_changes_a_key(override, self) for override in overrides):  # order matters
            return whole(self, master_config, sweep_overrides)
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
    """Whether this is a plain `key=value`; groups, `+key`, `~key` and `hydra.key` stay with Hydra."""
    plain = override.type == OverrideType.CHANGE and not override.is_hydra_override()
    return plain and not loader.repository.group_exists(override.key_or_group)


def _changes_a_key(override: Override, loader: ConfigLoaderImpl) -> bool:
    """Whether this is `+key`, `++key` or `~key`, which Hydra applies in the order of the command."""
    known = override.is_hydra_override() or loader.repository.group_exists(override.key_or_group)
    return override.type != OverrideType.CHANGE and not known


def _write_down(point: DictConfig, overrides: Sequence[Override]) -> None:
    """Record the overrides of this point where Hydra keeps them."""
    of_the_run = [override for override in overrides if not override.is_hydra_override()]
    point.hydra.overrides.task = [override.input_line for override in of_the_run]
    style = point.hydra.job.config.override_dirname
    point.hydra.job.override_dirname = get_overrides_dirname(
        overrides=of_the_run,
        kv_sep=style.kv_sep,
        item_sep=style.item_sep,
        exclude_keys=style.exclude_keys,
    )
