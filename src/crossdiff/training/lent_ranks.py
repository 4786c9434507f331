"""The task of a node that is not the first of its SLURM job: it lends its devices to the run of the first."""

from __future__ import annotations

import time

from crossdiff.training.launch import forwarding
from crossdiff.training.nodes import TELL_SECONDS, Nodes
from crossdiff.training.ranks import finish_ranks, start_call


class _Over(Exception):
    """Raised when the first node has ended."""


def lend_ranks(nodes: Nodes) -> None:
    """Start this node's ranks of every call that the first node gives, until it has ended.

    An error here is raised, and also sent to the first node, whose log and message the user sees.
    """

    def stop_when_over() -> None:
        if nodes.is_over():
            raise _Over

    number = 0
    while (call := nodes.take(number)) is not None:
        number += 1
        started = start_call(call, nodes)
        try:
            with forwarding(started.processes):
                finish_ranks(started, watch=stop_when_over)
        except _Over:
            return


def tell_first_node(nodes: Nodes, error: BaseException) -> None:
    """Send the error to the first node and wait until it can have acted on it."""
    nodes.tell_failed(error)
    end = time.monotonic() + 2 * TELL_SECONDS
    while time.monotonic() < end and not nodes.is_over():
        time.sleep(0.2)
