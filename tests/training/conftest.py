import pytest

from crossdiff.core.crosscoder import Crosscoder
from crossdiff.training.run import fit
from crossdiff.training.trainer import RunFolder
from tests.interrupted_runs import make_run
from tests.planted_source import PlantedSource


@pytest.fixture(scope="session")
def planted() -> PlantedSource:
    return PlantedSource()


@pytest.fixture(scope="session")
def undisturbed_folder(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return RunFolder(tmp_path_factory.mktemp("undisturbed"))


@pytest.fixture(scope="session")
def undisturbed(undisturbed_folder: RunFolder) -> Crosscoder:
    return fit(make_run(), PlantedSource(n_rows=2000), undisturbed_folder)[0]
