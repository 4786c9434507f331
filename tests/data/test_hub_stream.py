"""A stream that breaks off is opened again at the same row; what waiting does not mend is not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import datasets
import pytest

from crossdiff.data import hub_stream
from crossdiff.data.corpus import HubSource

SOURCE = HubSource(name="web", dataset="some/data")
N_ROWS = 20


class Network:
    """`load_dataset` of 20 rows; `faults` are raised one by one, at the row given or (None) on opening."""

    def __init__(self, *faults: tuple[int | None, Exception]) -> None:
        self.faults = list(faults)
        self.waits: list[float] = []

    def load(self, *_args: Any, **_options: Any) -> datasets.IterableDataset:
        if self.faults and self.faults[0][0] is None:
            raise self.faults.pop(0)[1]
        return datasets.IterableDataset.from_generator(self.rows)  # type: ignore[return-value]

    def rows(self) -> Iterator[dict[str, str]]:
        for number in range(N_ROWS):
            if self.faults and self.faults[0][0] == number:
                raise self.faults.pop(0)[1]
            yield {"text": f"document {number}"}


def read(network: Network, monkeypatch: pytest.MonkeyPatch, *, start: int = 0) -> list[tuple[int, str]]:
    monkeypatch.setattr(datasets, "load_dataset", network.load)
    rows = hub_stream.hub_rows(SOURCE, start, sleep=network.waits.append)
    return [(number, row["text"]) for number, row in rows]


def expected(start: int = 0) -> list[tuple[int, str]]:
    return [(number, f"document {number}") for number in range(start, N_ROWS)]


def test_a_stream_that_breaks_off_goes_on_at_the_same_row(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = ConnectionError("Server Disconnected")
    network = Network((12, broken), (None, ConnectionError("Couldn't reach")), (15, TimeoutError()))
    assert read(network, monkeypatch, start=3) == expected(3)
    assert network.waits == [15.0, 45.0, 15.0]
    told = capsys.readouterr().out.splitlines()
    assert told[0] == (
        "dataset some/data broke off at row 12 (ConnectionError: Server Disconnected); opening it again in "
        "15 s (attempt 1 of 5)"
    )
    assert len(told) == 3


def test_an_outage_before_the_first_row_of_a_dataset_that_was_reached_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network((0, ConnectionError("Server Disconnected")))
    assert read(network, monkeypatch) == expected()


def test_an_outage_that_lasts_is_the_message_of_an_unreachable_dataset(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    network = Network((5, ConnectionError("gone")), *[(None, ConnectionError("gone"))] * 5)
    with pytest.raises(ValueError, match=r"dataset some/data cannot be reached .*gone; .*use corpus=files"):
        read(network, monkeypatch)
    assert network.waits == list(hub_stream.WAITS_S)
    assert sum(network.waits) == 600


@pytest.mark.parametrize(
    "faults",
    [
        [(None, ConnectionError("Couldn't reach 'some/data' on the Hub"))],
        [(None, datasets.exceptions.DatasetNotFoundError("Dataset 'some/data' doesn't exist"))],
        [(4, FileNotFoundError("If the repo is private or gated, make sure to log in"))],
    ],
)
def test_a_first_failure_a_wrong_name_and_a_missing_login_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, faults: list[Any]
) -> None:
    network = Network(*faults)
    with pytest.raises(ValueError, match="dataset some/data cannot be reached or read"):
        read(network, monkeypatch)
    assert network.waits == []
