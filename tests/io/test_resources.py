import importlib
import pkgutil
from typing import get_args

from crossdiff import stages
from crossdiff.io.resources import BUILT_IN, StageName
from crossdiff.pipeline.steps import OF_STUDIES, stage_module


def test_every_stage_module_has_a_place_in_the_order_and_resources() -> None:
    names = [module.name for module in pkgutil.iter_modules(stages.__path__)]
    runnable = {
        name for name in names if hasattr(importlib.import_module(f"crossdiff.stages.{name}"), "VERSION")
    }
    runnable |= set(OF_STUDIES)
    assert all(stage_module(name).VERSION for name in runnable)
    assert set(get_args(StageName)) == runnable
    assert set(BUILT_IN) == runnable
