"""A sweep composed by the shortcuts is what Hydra itself composes."""

from pathlib import Path

import pytest
from hydra import initialize_config_dir
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import ConfigCompositionException
from hydra.plugins.sweeper import Sweeper
from hydra.types import RunMode
from omegaconf import OmegaConf

from crossdiff import composition
from crossdiff.io.environment import conf_dir

HYDRAS_OWN = ConfigLoaderImpl.load_sweep_config
POINTS = [
    ["model_pair=pt_simpo", "layer=1", "seed=3"],
    ["model_pair=pt_simpo", "layer=2", "seed=3"],
    ["layer=2", "model_pair=pt_it", "training=toy", "training.batch_size=64"],
    ["layer=2", "training.batch_size=32", "model_pair=pt_it", "training=toy"],
    ["experiment=demo", "~comparison", "model_pair=toy_pt_it", "name='a=b, c'"],
    ["experiment=paper", "size=ci", "corpus.n_tokens=1000", "++dispatch.harvest_workers=2"],
]


@pytest.fixture
def loader(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(ConfigLoaderImpl, "load_sweep_config", HYDRAS_OWN)
    monkeypatch.setattr(Sweeper, "validate_batch_is_legal", Sweeper.validate_batch_is_legal)
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        composition.shorten_sweeps()
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
