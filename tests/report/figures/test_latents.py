from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from crossdiff.report import figures
from crossdiff.report.sources import Sources
from tests.report_artifacts import Size, latent_table


@pytest.fixture(scope="module")
def latents() -> pd.DataFrame:
    return latent_table(Size(n_latents=5000), np.random.default_rng(0))


def test_the_histogram_counts_every_alive_latent(latents: pd.DataFrame) -> None:
    bars = figures.delta_norm(latents).data[0]
    assert sum(count or 0 for count in bars.y) == int((latents["kind"] != "dead").sum())


def test_the_crowd_is_shaded_and_only_exclusive_latents_are_points(latents: pd.DataFrame) -> None:
    figure = figures.nu_scatter(latents, nu_error=0.2, nu_reconstruction=0.5)
    points = [trace for trace in figure.data if trace.mode == "markers"]
    assert [len(trace.x) for trace in points] == [12, 3]
    assert list(points[0].customdata) == list(range(12))
    assert all(trace.fill == "toself" for trace in figure.data if trace.mode == "lines")


def test_base_exclusive_points_use_the_base_probe(latents: pd.DataFrame) -> None:
    figure = figures.nu_scatter(latents, nu_error=0.2, nu_reconstruction=0.5)
    base = figure.data[-1]
    expected = latents.loc[latents["exclusive_to"] == "base", "nu_error_baseprobe"].round(4)
    assert list(base.y) == expected.tolist()


def test_points_outside_the_window_are_counted(latents: pd.DataFrame) -> None:
    far = latents.copy()
    far.loc[100:109, "nu_error"] = 40.0
    figure = figures.nu_scatter(far, nu_error=0.2, nu_reconstruction=0.5)
    before = figures.nu_scatter(latents, nu_error=0.2, nu_reconstruction=0.5)

    def outside(drawn) -> int:
        return (
            int(drawn.layout.annotations[0].text.split()[0].replace(",", ""))
            if drawn.layout.annotations
            else 0
        )

    assert outside(figure) == outside(before) + 10


def test_114688_latents_make_small_figures() -> None:
    table = latent_table(Size(n_latents=114_688, n_exclusive=100), np.random.default_rng(0))
    drawn = [figures.delta_norm(table), figures.density(table), figures.norms(table), figures.cosines(table)]
    drawn.append(figures.nu_scatter(table, nu_error=0.2, nu_reconstruction=0.5))
    assert all(len(json.dumps(figure.to_plotly_json(), default=str)) < 900_000 for figure in drawn)


def test_a_pair_without_alive_latents_says_so(latents: pd.DataFrame) -> None:
    dead = latents.assign(kind="dead", density=0.0)
    for figure in (
        figures.delta_norm(dead),
        figures.density(dead),
        figures.norms(dead),
        figures.cosines(dead),
    ):
        assert figure.layout.annotations[0].text.startswith("No latent")


def test_training_panels_hold_both_models(sources: Sources) -> None:
    figure = figures.training(sources.pairs["pt_it"].metrics)
    assert {"fve_base", "fve_tuned", "loss"} <= {trace.name.rsplit("/")[-1] for trace in figure.data}
    assert "No training metrics" in figures.training(None).layout.annotations[0].text


def test_stops_list_clauses_in_words_and_end_with_the_exclusive() -> None:
    figure = figures.stops({"dead": 5, "nu_error": 7, "min_tokens": 0}, n_exclusive=3, side="tuned")
    names = [name.replace("<br>", " ") for name in figure.data[0].y]
    assert names == ["never active", "complete shrinkage (nu_error)", "tuned-exclusive"]
    assert max(len(line) for name in figure.data[0].y for line in name.split("<br>")) <= 24


def test_several_lines_of_a_training_panel_have_a_key() -> None:
    metrics = pd.DataFrame(
        {"step": [1, 2], "fve_base": [0.1, 0.2], "fve_tuned": [0.1, 0.3], "threshold": [1, 2]}
    )
    titles = [note.text for note in figures.training(metrics).layout.annotations]
    assert titles[1] == "threshold"
    assert "— base</span>" in titles[0]
    assert "— tuned</span>" in titles[0]


def test_the_multiverse_colours_known_cells_only() -> None:
    figure = figures.multiverse(["a", "b"], ["votes", "threshold"], [[1.0, None], [-0.5, 0.0]])
    squares = sum(list(trace.x).count(None) + 1 for trace in figure.data)
    assert squares == 3


def test_figures_use_what_the_basic_bundle_draws(sources: Sources) -> None:
    from crossdiff.report.sections import page_context

    drawn = page_context(sources)["figures"]
    assert {trace.type for figure in drawn.values() for trace in figure.data} <= {"bar", "scatter"}
