"""The sparse BatchTopK step: equal to the dense one, at little more than the price of the encoder product."""

from crossdiff.core.sparse.adam import SparseRowAdam
from crossdiff.core.sparse.step import BatchTopKStep

__all__ = ["BatchTopKStep", "SparseRowAdam"]
