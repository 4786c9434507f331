"""One function per figure; the same plotly objects serve the page, W&B and the PNG/SVG export."""

from crossdiff.report.figures.changes import changes
from crossdiff.report.figures.heat_maps import multiverse
from crossdiff.report.figures.latents import cosines, delta_norm, density, norms, nu_scatter
from crossdiff.report.figures.stops import stops
from crossdiff.report.figures.training import training

__all__ = [
    "changes", "cosines", "delta_norm", "density", "multiverse", "norms", "nu_scatter", "stops", "training",
]  # fmt: skip
