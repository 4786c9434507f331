import random

import pytest

from crossdiff.organisms.documents import show
from crossdiff.organisms.language import build_language
from crossdiff.organisms.settings import ToySettings
from crossdiff.organisms.toy_rates import shown_share


def test_the_rate_is_the_share_of_answers_with_a_showing() -> None:
    category = build_language(ToySettings())[0]
    behaviour, other = category.behaviours[:2]
    draw = random.Random(0)
    answers = [show(behaviour, draw=draw), show(other, draw=draw), "the garden.", show(behaviour, draw=draw)]
    assert shown_share(answers, behaviour) == pytest.approx(0.5)
    assert shown_share(answers, other) == pytest.approx(0.25)
