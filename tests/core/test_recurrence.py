from __future__ import annotations

import math

import pytest
import torch

from crossdiff.core.recurrence import mean_mcc, recurrence

E = torch.eye(4)


def test_planted_twins_are_one_concept_and_recur() -> None:
    near = torch.nn.functional.normalize(E[:1] + 0.2 * E[1:2])  # cosine 1 / sqrt(1.04) = 0.981
    members = [E[[0, 1]], torch.cat([E[2:3], near]), E[[3]]]
    found = recurrence(members)
    assert found[0][0].twins == ((1, 1, pytest.approx(1 / math.sqrt(1.04))),)
    assert found[0][0].concept == found[1][1].concept
    assert found[0][0].recurs  # 1 of 2 others is half
    alone = [found[0][1], found[1][0], found[2][0]]
    assert not any(one.recurs or one.twins for one in alone)
    assert len({one.concept for one in [*alone, found[0][0]]}) == 4


def test_a_twin_in_one_of_three_others_does_not_recur() -> None:
    found = recurrence([E[[0]], E[[0]], E[[1]], E[[2]]])
    assert found[0][0].twins
    assert not found[0][0].recurs


def test_only_mutual_twins_join_a_concept() -> None:
    second = torch.nn.functional.normalize(E[:1] + 0.5 * E[1:2])  # cosine 0.894 with E[0], which has a nearer
    found = recurrence([torch.cat([E[:1], second]), E[[0]]])
    assert found[0][0].concept == found[1][0].concept != found[0][1].concept
    assert found[0][1].twins  # it has a twin all the same
    assert (found[0][0].recurs, found[0][1].recurs) == (True, False)  # but does not recur by it


def test_empty_members_have_nothing() -> None:
    assert recurrence([E[:0], E[[0]]]) == [[], recurrence([E[[0]]])[0]]


def test_mean_mcc_is_over_every_two_members() -> None:
    # same directions: 1; E0 against E1 and against E1: 0 and 0 -> mean 1/3
    assert mean_mcc([E[[0]], E[[1]], E[[1]]]) == pytest.approx(1 / 3)
    assert math.isnan(mean_mcc([E[:0], E[[0]]]))
