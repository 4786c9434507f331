"""Which behaviour is a latent's is read off its documents, and prompts come from where they should."""

import math
import random

import pandas as pd
import pytest

from crossdiff.organisms.documents import plain_sentence, show
from crossdiff.organisms.language import build_language
from crossdiff.organisms.settings import ToySettings
from crossdiff.studies.steering.targets import (
    built_in_targets,
    planted_targets,
    pooled,
    read_curves,
    sentence_at,
    target_of,
    verdicts,
)

TOY = ToySettings(seed=3)
LANGUAGE = build_language(TOY)
TARGETS = planted_targets(TOY, 9)
CATEGORY = next(category for category in LANGUAGE if len(category.behaviours) == 4)
OTHER = next(category for category in LANGUAGE if category is not CATEGORY)


def shown(number: int, n: int) -> list[str]:
    draw = random.Random(0)
    return [show(CATEGORY.behaviours[number], draw=draw).split(".")[0] for _ in range(n)]


def plain(n: int) -> list[str]:
    draw = random.Random(1)
    return [plain_sentence(CATEGORY, draw=draw) for _ in range(n)]


def test_the_phrase_of_half_the_documents_is_the_latents() -> None:
    found = target_of(CATEGORY.name, [*shown(2, 3), *plain(3)], TARGETS)
    assert found is not None
    assert (found[0].name, found[1]) == (f"{CATEGORY.name} 3", 0.5)


def test_a_minority_a_tie_and_a_phrase_of_another_category_are_nobodys() -> None:
    assert target_of(CATEGORY.name, [*shown(2, 2), *plain(3)], TARGETS) is None
    assert target_of(CATEGORY.name, [*shown(2, 3), *shown(1, 3)], TARGETS) is None
    assert target_of(OTHER.name, shown(2, 4), TARGETS) is None
    assert target_of(CATEGORY.name, plain(4), TARGETS) is None


def test_prompts_are_of_the_category_or_of_others() -> None:
    target = next(each for each in TARGETS if each.category == CATEGORY.name)
    assert len(target.own) == len(target.neutral) == 9
    assert all(set(prompt.rstrip("?").split()) & set(CATEGORY.topic) for prompt in target.own)
    assert not any(set(prompt.rstrip("?").split()) & set(CATEGORY.topic) for prompt in target.neutral)
    assert len(TARGETS) == sum(len(category.behaviours) for category in LANGUAGE)


def test_built_in_sets_belong_to_their_category_and_ask_the_other_sets_in_turn() -> None:
    targets = built_in_targets(20)
    found = target_of("harmful_request_refusal", ["anything"], targets)
    assert found is not None
    assert found[0].name == "refusal"
    assert target_of("mathematics", ["anything"], targets) is None
    prompts = {each.name: set(each.own) for each in targets}
    assert len(found[0].neutral) == len(found[0].own) == 20
    assert not set(found[0].neutral) & prompts["refusal"]
    assert all(set(found[0].neutral) & own for name, own in prompts.items() if name != "refusal")


def test_the_sentence_at_a_peak_ends_with_its_full_stop() -> None:
    tokens = ["<bos>", " one", " two", ".", " three", " four", ".", "<end>"]
    assert [sentence_at(tokens, peak) for peak in (1, 3, 4, 6, 7)] == [
        "<bos> one two", "<bos> one two", "three four", "three four", "<end>",
    ]  # fmt: skip


NAN = float("nan")


def table(latent: dict[float, int], drawn: dict[float, int], *, n: int = 20) -> pd.DataFrame:
    rows = [
        {
            "latent": 7,
            "direction": direction,
            "dose": dose,
            "place": "own",
            "shown": shown,
            "n": n,
            "n_empty": 0,
        }
        for direction, counts in (("latent", latent), ("random_0", drawn))
        for dose, shown in counts.items()
    ]
    return pd.DataFrame(rows)


def test_a_rising_latent_a_flat_draw_and_their_common_start() -> None:
    rows = table({-1: 0, 0: 4, 0.5: 10, 1: 16, 2: 0, NAN: 1}, {-1: 5, 0.5: 5, 1: 4, 2: 20, NAN: 6})
    own, drawn = read_curves(rows)
    assert own.counts[0.0] == drawn.counts[0.0] == (4, 20)
    assert (own.removed, drawn.removed) == ((1, 20), (6, 20))
    assert own.verdict(1.0) == "rises"
    assert drawn.verdict(1.0) == "flat"  # what happens at dose 2 is not tested
    assert drawn.verdict(2.0) == "rises"
    assert own.stratum(1.0) == ([0.0, 0.5, 1.0], [4, 10, 16], [20, 20, 20])


def test_falling_and_silent_directions() -> None:
    falling, silent = read_curves(table({0: 18, 0.5: 9, 1: 2, NAN: 0}, {0.5: 9, 1: 2, NAN: 0}))
    assert falling.verdict(1.0) == silent.verdict(1.0) == "falls"
    silent = read_curves(table({0: 0, 1: 0, NAN: 0}, {1: 0, NAN: 0}))
    assert verdicts(silent, 1.0) | {"z_together": None} == {
        "n": 2, "rises": 0, "falls": 0, "flat": 0, "silent": 2, "z_together": None,
    }  # fmt: skip
    assert math.isnan(verdicts(silent, 1.0)["z_together"])


def test_rates_of_several_curves_are_summed() -> None:
    found = pooled(read_curves(table({0: 4, 1: 16, NAN: 1}, {1: 4, NAN: 6})))
    assert found["0"]["rate"] == pytest.approx(8 / 40)
    assert found["1"]["rate"] == pytest.approx(20 / 40)
    assert (found["removed"]["shown"], found["removed"]["n"]) == (7, 40)
    assert found["1"]["low"] < 0.5 < found["1"]["high"]
