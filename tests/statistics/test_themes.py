from __future__ import annotations

import math

import pytest

from crossdiff.statistics.themes import ThemeLatent, by_shared_word, latent_energy, sure_category, themes


def latent(
    number: int, category: str | None, *words: str, energy: float = 1.0, crosscoder: str = "a"
) -> ThemeLatent:
    return ThemeLatent(crosscoder, number, category, words, energy)


def test_energy_is_the_sum_of_squared_codes_times_the_squared_norm() -> None:
    # 3 tokens between 1 and 2 count 3 * 1 * 2, 1 token between 2 and 8 counts 2 * 8; norm 0.5 -> a quarter
    assert latent_energy({"edges": [1, 2, 8], "counts": [3, 1]}, 0.5) == pytest.approx(0.25 * (6 + 16))


def test_energy_is_unknown_without_a_histogram_or_a_norm() -> None:
    assert math.isnan(latent_energy(None, 1.0))
    assert math.isnan(latent_energy({"edges": [1, 2], "counts": [1]}, float("nan")))


def test_planted_habits_come_back_as_themes_by_energy() -> None:
    planted = [
        latent(1, "refusal", "sorry", "help", "request", energy=3.0),
        latent(2, "refusal", "can't", "sorry", "help", energy=2.0, crosscoder="b"),
        latent(3, None, "hope", "helps", "sure", energy=4.0),
        latent(4, None, "helps", "hope", "bright", energy=5.0, crosscoder="b"),
        latent(5, None, "velvet", "piano", energy=6.0),
    ]
    found = themes(planted)
    assert [theme.category for theme in found] == [None, None, "refusal"]
    assert [{one.latent for one in theme.latents} for theme in found] == [{3, 4}, {5}, {1, 2}]
    assert [theme.energy_share for theme in found] == [9 / 20, 6 / 20, 5 / 20]
    assert set(found[0].words[:2]) == {"hope", "helps"}
    assert found[2].words[0] == "sorry"
    assert [theme.crosscoders for theme in found] == [2, 1, 2]


def test_every_latent_is_in_one_theme() -> None:
    given = [latent(n, None if n % 3 else "code", f"w{n % 4}", f"v{n % 5}") for n in range(40)]
    found = [one.latent for theme in themes(given) for one in theme.latents]
    assert sorted(found) == list(range(40))


def test_the_word_that_most_share_makes_the_first_group() -> None:
    given = [latent(1, None, "tea", "cup"), latent(2, None, "cup"), latent(3, None, "cup", "tea")]
    (word, group), *rest = by_shared_word([*given, latent(4, None, "tea"), latent(5, None)])
    assert word == "cup"
    assert [one.latent for one in group] == [1, 2, 3]
    assert rest == [(None, [latent(4, None, "tea")]), (None, [latent(5, None)])]


def test_words_of_all_themes_do_not_name_one() -> None:
    given = [latent(n, "code", "softly", "python") for n in range(4)]
    given += [latent(n, "poem", "softly", "rhyme") for n in range(4, 8)]
    assert {theme.category: theme.words[0] for theme in themes(given)} == {"code": "python", "poem": "rhyme"}


def test_the_example_holds_the_words_of_its_theme() -> None:
    given = [latent(1, "code", "velvet", energy=9.0), *(latent(n, "code", "python") for n in (2, 3))]
    assert themes(given)[0].best.latent == 2


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"category": "code", "votes": {"code": 0.9}, "confidence": 5}, "code"),
        ({"category": "code", "votes": {"code": 0.4, "other": 0.3}, "confidence": 3}, None),
        ({"category": "code", "votes": {}, "confidence": 2}, None),
        ({"category": "code", "votes": {}, "confidence": None}, "code"),
        ({"category": "other", "votes": {"other": 1.0}, "confidence": 5}, None),
        ({"category": None}, None),
    ],
)
def test_a_weak_vote_names_no_theme(row: dict, expected: str | None) -> None:
    assert sure_category(row) == expected


def test_unknown_energies_leave_the_order_to_the_counts() -> None:
    nan = float("nan")
    given = [latent(1, "a", "x", energy=nan), *(latent(n, "b", "y", energy=nan) for n in (2, 3))]
    found = themes(given)
    assert [theme.category for theme in found] == ["b", "a"]
    assert all(math.isnan(theme.energy_share) for theme in found)
