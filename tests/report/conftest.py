from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from crossdiff.report.page import render
from crossdiff.report.sources import Sources, read_sources
from tests import report_artifacts
from tests.report_artifacts import Store

MakePage = Callable[..., Path]


def sources_of(store: Store) -> Sources:
    reference, treatment = store.pairs if len(store.pairs) == 2 else (None, None)
    return read_sources(store.parents, pairs=store.pairs, reference=reference, treatment=treatment)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return report_artifacts.build(tmp_path_factory.mktemp("artifacts"))


@pytest.fixture(scope="session")
def sources(store: Store) -> Sources:
    return sources_of(store)


@pytest.fixture(scope="session")
def page(sources: Sources) -> str:
    return render(sources, title="Toy")
