"""Ranks that were started for other runs than the first one are refused before they train together."""

from __future__ import annotations

import pytest

from crossdiff.training import resume


def meet(patched: pytest.MonkeyPatch, *commits: str | None, seeds: tuple[int, int] = (0, 0)) -> None:
    """Two ranks say what git tells them and what they were started for."""
    told: list[dict] = []
    patched.setattr(resume, "n_ranks", lambda _: 2)
    patched.setattr(resume, "told_by_all_ranks", lambda own: told.append(own) or [own, own])
    for commit, seed in zip(commits, seeds, strict=True):
        patched.setattr(resume, "git_commit", lambda known=commit: known)
        resume.refuse_disagreement({"seed": seed})
    patched.setattr(resume, "told_by_all_ranks", lambda _: told)
    resume.refuse_disagreement({})


def test_other_settings_and_another_commit_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    meet(monkeypatch, "aa", "aa")
    with pytest.raises(ValueError, match="process 1 of 2 .* seed was 0, is 1; give all the same command"):
        meet(monkeypatch, "aa", "aa", seeds=(0, 1))
    with pytest.raises(ValueError, match="commit was 'aa', is 'bb'"):
        meet(monkeypatch, "aa", "bb")


def test_a_commit_that_git_did_not_tell_and_later_edits_are_no_disagreement(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for commits in (("aa", None), (None, "aa"), (None, None), ("aa", "aa+changes")):
        meet(monkeypatch, *commits)
