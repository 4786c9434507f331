from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from crossdiff.report.first_screen import Side, between, changed, first_screen, words_of
from crossdiff.report.page import render
from crossdiff.report.sources import Sources
from tests import report_artifacts
from tests.report.conftest import sources_of


def test_each_pair_says_what_is_new_and_what_is_gone_the_treatment_first(sources: Sources) -> None:
    found = first_screen(sources)["pairs"]
    assert [pair["name"] for pair in found] == ["pt_simpo", "pt_it"]
    new = found[0]["new"]
    assert new["title"] == "What is new in the tuned model of pt_simpo"
    assert 1 <= len(new["themes"]) <= 8
    for theme in new["themes"]:
        assert theme["href"].startswith("#latent-pt_simpo-")
        assert any(piece["level"] for piece in theme["line"])


def test_every_labelled_latent_is_in_a_theme_or_in_the_rest(sources: Sources) -> None:
    side = Side(sources.crosscoders("pt_it"), "tuned")
    assert sum(len(theme.latents) for theme in side.themes) == sources.pairs["pt_it"].n_labelled()
    assert sum(theme.energy_share for theme in side.themes) == pytest.approx(1)


def test_energy_is_that_of_the_histogram_and_the_tuned_norm(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    side = Side((pair,), "tuned")
    table = pair.latents.set_index("latent")
    one = side.themes[0].latents[0]
    # 900 tokens between 0.5 and 1, 3 between 2 and 4
    expected = (900 * 0.5 * 1 + 3 * 2 * 4) * float(table.at[one.latent, "norm_tuned"]) ** 2
    assert one.energy == pytest.approx(expected)


def test_several_crosscoders_say_how_many_found_a_theme(sources: Sources) -> None:
    pair = sources.pairs["pt_it"]
    rows = [{**row, "pair": "pt_it_seed1"} for row in pair.annotations[:4]]
    other = replace(pair, name="pt_it_seed1", annotations=rows)
    several = replace(sources, members={"pt_it": (pair, other)}, comparison=None, pairs={"pt_it": pair})
    counts = [theme["counts"] for theme in first_screen(several)["pairs"][0]["new"]["themes"]]
    assert any("found by 2 of 2 crosscoders" in text for text in counts)
    assert any("found by 1 of 2 crosscoders" in text for text in counts)


def test_a_model_without_labels_says_so(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path, pairs=("pt_it",))
    del store.parents["annotate"]
    found = first_screen(sources_of(store))["pairs"][0]["new"]
    assert found["themes"] == []
    assert "not labelled yet" in found["empty"]


def test_words_are_keywords_or_those_of_the_label_without_stop_words() -> None:
    assert words_of({"keywords": ["Hope", "that", "hope"], "label": "x"}) == ("hope",)
    assert words_of({"keywords": [], "label": "polite offers to help"}) == ("polite", "offers", "help")
    assert words_of({"label": None}) == ()


def test_hostile_labels_and_documents_are_escaped_in_themes(tmp_path: Path) -> None:
    store = report_artifacts.build(tmp_path, pairs=("pt_it",), hostile=True)
    path = store.parents["annotate"] / "annotations.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    words = ["<img src=x onerror=alert(1)>", "\u202eevil"]
    told = [{**row, "category": "other", "keywords": words} if row["keywords"] else row for row in rows]
    path.write_text("".join(json.dumps(row) + "\n" for row in told))
    page = render(sources_of(store), title="Toy")
    shown = page.split('class="themes"')[1].split("</ol>")[0]
    assert "<img" not in shown
    assert "\u202e" not in shown
    assert "&lt;img" in shown


def test_nothing_is_said_to_have_changed_where_nothing_is_claimed(sources: Sources) -> None:
    assert changed(sources) is None  # all q-values are 0.4
    assert sources.comparison is not None
    deltas = sources.comparison.deltas.assign(q_value=0.001)
    found = changed(replace(sources, comparison=replace(sources.comparison, deltas=deltas)))
    assert found is not None
    assert {side["kind"] for side in found["sides"]} <= {"more", "less"}
    assert sum(len(side["rows"]) for side in found["sides"]) >= 6


def test_intervals_are_whole_percents() -> None:
    assert between((-0.614, 4.609)) == "−61 to +461 %"
    assert between((float("nan"), 1.0)) == "no interval"
