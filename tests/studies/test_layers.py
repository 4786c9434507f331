"""Layers: the sentence counts what the labels say."""

import pytest

from crossdiff.studies.layers import Layers

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
