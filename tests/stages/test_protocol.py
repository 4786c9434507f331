"""Stages are found by their declaration, in an order in which each follows what it reads."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from crossdiff.config import study_names
from crossdiff.pipeline.plan import plan
from crossdiff.pipeline.steps import merge
from crossdiff.settings import Settings
from crossdiff.stages import protocol
from crossdiff.stages.protocol import EVERYTHING, Stage
from tests.composed import experiment


class CentroidsInputs(Settings):
    """Inputs of a stage that is declared here, outside the package."""


def run(inputs, parents, draft, runtime):
    return {}


STAGE = Stage("centroids", version=1, run=run, reads=("harvest",), writes="centroids")


def test_every_module_with_a_run_is_a_stage_of_its_name() -> None:
    declaring = {
        path for place in protocol.PLACES for path in protocol.PACKAGE.glob(place)
        if re.search(r"^def run\(\s*inputs: \w+Inputs", path.read_text(), re.M)
    }  # fmt: skip
    assert len(declaring) == len(protocol.modules()) >= 19
    for stage in protocol.stages():
        assert protocol.stage(stage.name) is stage
        assert stage.version >= 1
        assert stage.resources.hours


def test_every_stage_comes_after_what_it_reads() -> None:
    names = [stage.name for stage in protocol.stages()]
    for stage in protocol.stages():
        if stage.reads != EVERYTHING:
            assert set(stage.reads) <= set(names[: names.index(stage.name)]), stage.name
    assert names[0] == "organism"
    assert names[-1] == "study"


def test_plans_read_only_what_their_stages_declare() -> None:
    """Otherwise the order of a plan, which SLURM submits stage by stage, would not be parents first."""
    plans = [plan(experiment("experiment=demo", "comparison.n_seeds=2"))]
    plans += [plan(experiment(f"experiment={study}", "size=ci")) for study in study_names()]
    plans.append(plan(experiment("experiment=contenders", "size=ci", "study.toy_kinds=[batch_topk]")))
    for step in merge(plans):
        reads = step.definition.reads
        parents = {parent.stage for parent in step.parents.values()}
        assert reads == EVERYTHING or parents <= set(reads), (step.name, parents - set(reads))
    assert {step.stage for step in merge(plans)} | {"judge", "outside_rates"} == set(protocol.names())


def test_a_stage_from_outside_is_found_beside_its_inputs() -> None:
    assert protocol.stage_of("centroids", CentroidsInputs()) is STAGE
    assert protocol.position(STAGE) > protocol.position(protocol.stage("harvest"))
    with pytest.raises(ValueError, match="no stage 'medians'.*STAGE = Stage"):
        protocol.stage_of("medians", CentroidsInputs())
    with pytest.raises(ValueError, match="no stage 'centroids'; there are annotate"):
        protocol.stage("centroids")


def test_two_declarations_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "stages").mkdir()
    for name in ("a", "b"):
        (tmp_path / "stages" / f"{name}.py").write_text('STAGE = Stage(\n    "tokens", version=1)\n')
    monkeypatch.setattr(protocol, "PACKAGE", tmp_path)
    with pytest.raises(ValueError, match=r"tokens is declared by .*\.a and by .*\.b"):
        protocol.modules.__wrapped__()
