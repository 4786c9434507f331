"""A sweep composed by the shortcuts is what Hydra itself composes."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import OmegaConf
from yaml.constructor import ConstructorError

from crossdiff import composition
from crossdiff.io.environment import conf_dir

HYDRAS_OWN = ConfigLoaderImpl.load_sweep_config
POINTS = [
    ["model_pair=pt_simpo", "layer=1", "seed=3"],
    ["model_pair=pt_simpo", "layer=2", "seed=3"],
    ["layer=2", "model_pair=pt_it", "training=toy", "training.batch_size=64"],
    ["layer=2", "training.batch_size=32", "model_pair=pt_it", "training=toy"],
    ["experiment=demo", "~comparison", "model_pair=toy_pt_it", "name='a=b, c'"],
    ["model_pair=pt_it", "layer=1", "seed=1", "++seed=2"],
    ["experiment=paper", "size=ci", "corpus.n_tokens=1000", "++dispatch.harvest_workers=2"],
]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", HYDRAS_OWN)
    monkeypatch.setattr(Hydra, "get_mode", Hydra.get_mode)
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", Sweeper.validate_batch_is_legal)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composition.shorten_commands(conf_dir())
        yield GlobalHydra.instance().config_loader()


def test_every_point_is_what_hydra_composes(loader: ConfigLoaderImpl) -> None:
    master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    for point in [*POINTS, *POINTS]:
        quick = loader.load_sweep_config(master, point)
        slow = HYDRAS_OWN(loader, master, point)
        assert OmegaConf.to_container(quick) == OmegaConf.to_container(slow)
        assert quick.hydra.overrides.task == point
        quick.seed = 99  # a point belongs to its caller: the next one does not see this


def test_an_unknown_value_is_refused_as_before(loader: ConfigLoaderImpl) -> None:
    master = loader.load_configuration("config", [], run_mode=RunMode.MULTIRUN)
    for point in (["model_pair=pt_it", "layr=1"], ["model_pair=nowhere", "layer=1"]):
        errors = []
        for compose in (loader.load_sweep_config, lambda *args: HYDRAS_OWN(loader, *args)):
            with pytest.raises(ConfigCompositionException) as caught:
                compose(master, point)
            errors.append(str(caught.value))
        assert errors[0] == errors[1]


def test_a_folder_of_the_users_own_is_searched(loader: ConfigLoaderImpl, tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "mine.yaml").write_text("defaults: [toy]\n")
    master = loader.load_configuration(
        "config", [f"hydra.searchpath=[file://{tmp_path}]"], run_mode=RunMode.MULTIRUN
    )
    point = loader.load_sweep_config(master, ["model_pair=pt_it", "layer=1", "corpus=mine"])
    assert point.hydra.runtime.choices.corpus == "mine"


def test_hydra_is_asked_for_the_mode_where_it_can_be_set(loader: ConfigLoaderImpl, tmp_path: Path) -> None:
    hydra = GlobalHydra.instance().hydra
    assert hydra is not None
    assert hydra.get_mode("config", ["model_pair=pt_it", "layer=1"]) is None
    assert hydra.get_mode("config", ["hydra.mode=MULTIRUN"]) == RunMode.MULTIRUN
    (tmp_path / "experiment").mkdir()
    preset = tmp_path / "experiment" / "mine.yaml"
    preset.write_text("# @package _global_\nlayer: 1\n")
    assert not composition._sets_hydra(tmp_path)
    preset.write_text("# @package _global_\nhydra: {mode: MULTIRUN}\n")
    assert composition._sets_hydra(tmp_path)


def test_option_files_are_read_as_omegaconf_reads_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    odd = tmp_path / "odd.yaml"
    odd.write_text("a: 1e-3\nb: 2020-01-01\nc: .5\nd: 1_000\ne: [x, y]\nf: ${of_size:}\n")
    twice = tmp_path / "twice.yaml"
    twice.write_text("a: 1\na: 2\n")
    for reader in (composition._loader_in_c, composition._loader_in_python):
        monkeypatch.setattr(composition.omegaconf._utils, "get_yaml_loader", reader)
        read = OmegaConf.to_container(OmegaConf.load(odd), resolve=False)
        assert read == {
            "a": 0.001, "b": "2020-01-01", "c": 0.5, "d": 1000, "e": ["x", "y"], "f": "${of_size:}"
        }  # fmt: skip
        with pytest.raises(ConstructorError, match="found duplicate key a"):
            OmegaConf.load(twice)
