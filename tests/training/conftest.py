import pytest

from tests.planted_source import PlantedSource


@pytest.fixture(scope="session")
def planted() -> PlantedSource:
    return PlantedSource()
