"""Settings of actions, dispatch and logger: an option of a group is its class; reading them is cheap."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from hydra.utils import get_class
from pydantic import ValidationError

from crossdiff.command_settings import FORMATS, ExportSettings, SlurmDispatch, WandbLogger
from crossdiff.io.environment import conf_dir
from crossdiff.stages import protocol
from crossdiff.stages.protocol import Resources
from tests.composed import experiment

HEAVY = {"torch", "pandas", "scipy", "transformers", "pytorch_lightning", "wandb", "submitit", "anthropic"}
PAIR = ("model_pair=pt_simpo", "layer=20")


@pytest.mark.parametrize("what", FORMATS)
def test_the_first_format_is_the_default_and_others_are_refused(what) -> None:
    assert ExportSettings(what=what).chosen_format == FORMATS[what][0]
    stranger = "svg" if what == "checkpoint" else "dictionary_learning"
    with pytest.raises(ValidationError, match=f"choose {FORMATS[what][0]}"):
        ExportSettings(what=what, format=stranger)


def test_only_crosscoders_in_our_format_go_to_the_hub() -> None:
    with pytest.raises(ValidationError, match=r"use export.what=checkpoint export.format=crossdiff"):
        ExportSettings(what="checkpoint", hub_id="me/it")
    assert ExportSettings(what="checkpoint", format="crossdiff", hub_id="me/it").hub_id == "me/it"


@pytest.mark.parametrize(
    "path", sorted([*conf_dir().glob("logger/*.yaml"), *conf_dir().glob("dispatch/*.yaml")]), ids=str
)
def test_an_option_gives_exactly_the_arguments_of_its_class(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    settings = get_class(content.pop("_target_"))
    admitted = {"stages"} if content.pop("defaults", None) else set()  # the option dispatch/stages: all
    assert set(content) | admitted == set(settings.model_fields)


@pytest.mark.parametrize("stage", protocol.names())
def test_every_resource_of_every_stage_is_a_setting(stage: str) -> None:
    """sbatch's refusal recommends this form for whichever stage it refused."""
    given = {"partition": "x", "qos": "low", "gpus": 2, "memory_gb": 1.5, "setup": ["module load cuda"]}
    written = [f"dispatch.stages.{stage}.{name}={value}" for name, value in given.items()]
    dispatch = experiment(*PAIR, "dispatch=slurm", *written).dispatch
    assert isinstance(dispatch, SlurmDispatch)
    assert set(dispatch.stages) == set(protocol.names())
    assert dispatch.stages.pop(stage) == Resources(**given | {"setup": ("module load cuda",)})
    assert set(dispatch.stages.values()) == {Resources()}


def test_what_is_no_stage_is_refused_with_the_stages_there_are() -> None:
    with pytest.raises(ValidationError, match="trian is no stage; stages are annotate, .* train"):
        SlurmDispatch(stages={"trian": Resources()})


def test_reading_the_settings_imports_no_logger_and_no_scheduler() -> None:
    code = f"import sys, crossdiff.command_settings; sys.exit(bool({HEAVY} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_logger_has_no_field_for_a_key() -> None:
    with pytest.raises(ValueError, match="api_key"):
        WandbLogger(api_key="secret")  # type: ignore[call-arg]
