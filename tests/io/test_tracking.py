"""Logger settings: each option of the group is its class, and none of them needs W&B to be read."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from crossdiff.io import tracking
from crossdiff.io.resources import LocalDispatch, Resources, SlurmDispatch, resolve
from crossdiff.io.resources import Profile as ClusterProfile

CONF = Path(__file__).resolve().parents[2] / "conf"


@pytest.mark.parametrize(
    "path", sorted([*CONF.glob("logger/*.yaml"), *CONF.glob("dispatch/*.yaml")]), ids=str
)
def test_an_option_gives_exactly_the_arguments_of_its_class(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    module, _, name = content.pop("_target_").rpartition(".")
    settings = getattr(sys.modules[module], name)
    assert set(content) == set(settings.model_fields)


def test_reading_the_settings_imports_no_logger_and_no_scheduler() -> None:
    code = (
        "import sys, crossdiff.io.tracking, crossdiff.io.resources;"
        "sys.exit(bool({'wandb', 'submitit', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_logger_has_no_field_for_a_key() -> None:
    with pytest.raises(ValueError, match="api_key"):
        tracking.WandbLogger(api_key="secret")  # type: ignore[call-arg]


def test_weaker_resources_fill_only_what_is_not_said() -> None:
    assert Resources(gpus=0).over(Resources(gpus=2, cpus=3)) == Resources(gpus=0, cpus=3)
    assert resolve("report", SlurmDispatch(), ClusterProfile()).gpus == 0
    assert LocalDispatch() == LocalDispatch()
