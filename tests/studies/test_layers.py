"""Layers: the sentence counts what the labels say."""

import pytest

from crossdiff.studies.layers import Layers, _answer

REFERENCE = {"mathematics": 12, "storytelling": 3, "role_play": 9, "self_reference": 2}
TREATMENT = {"mathematics": 3, "storytelling": 12, "role_play": 2, "self_reference": 9}


def test_equal_layers_keep_every_sign(make_run) -> None:
    runs = {name: make_run(name, REFERENCE, TREATMENT) for name in ("layer_1", "layer_2")}
    found = Layers(layers=(1, 2)).analyse(runs, {})
    assert "4 of 4 categories keep their sign across layers 1, 2" in found.answer
    assert found.numbers["chance"] < 4
    assert [chart.name for chart in found.charts] == ["counts", "changes"]


def test_opposite_layers_keep_none(make_run) -> None:
    runs = {"layer_1": make_run("a", REFERENCE, TREATMENT), "layer_2": make_run("b", TREATMENT, REFERENCE)}
    assert "0 of 4 categories keep their sign" in Layers(layers=(1, 2)).analyse(runs, {}).answer


@pytest.mark.parametrize("layers", [(1, 1), (-1, 2)])
def test_a_layer_twice_or_negative_is_refused(layers) -> None:
    with pytest.raises(ValueError, match="name every layer once, 0-based"):
        Layers(layers=layers)


def words(found) -> str:
    """Everything that is read: answer, notes and tiles."""
    return " ".join([found.answer, *found.notes, *(str(tile) for tile in found.tiles)])


@pytest.mark.parametrize("labels", [({}, {"mathematics": 3}), ({"other": 4}, {"other": 3})])
def test_runs_that_share_no_category_are_unknown(make_run, labels) -> None:
    runs = {name: make_run(name, *labels) for name in ("layer_1", "layer_2")}
    found = Layers(layers=(1, 2)).analyse(runs, {})
    assert "stability of signs is unknown" in found.answer
    assert found.tiles[2]["value"] == "unknown"
    assert "keeps its sign: unknown (latents resampled)" in found.notes[0]
    assert "nan" not in words(found)


def test_no_verdict_is_drawn_from_a_missing_interval() -> None:
    stable = {"kept": 1, "judged": 2, "share_low": float("nan"), "chance": 0.5}
    assert "cannot be said" in _answer(stable, (1, 2))
