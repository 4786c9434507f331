"""The exclusive call, clause by clause."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch

from crossdiff.core.exclusive_call import Calls, SelectionSettings, SideEvidence, call_latents, kinds

N = 100


def evidence(**changes: Any) -> SideEvidence:
    """One latent that passes every clause, with one field changed."""
    values: dict[str, Any] = {
        "nu_error": 0.05, "nu_reconstruction": 0.1, "beta_error": 1.0, "beta_error_low": 0.9,
        "beta_reconstruction": 1.0, "beta_reconstruction_low": 0.9, "n_active": N, "n_documents": N,
        "nu_error_bounds": (0.0, 0.1), "nu_reconstruction_bounds": (0.0, 0.2),
        "nu_activation": 0.3, "nu_activation_bounds": (0.25, 0.35), "beta_activation": 1.0,
        "beta_activation_low": 0.9, **changes,
    }  # fmt: skip
    fields = {}
    for name, value in values.items():
        dtype = torch.int64 if name.startswith("n_") else torch.float64
        fields[name] = None if value is None else torch.tensor(value, dtype=dtype).unsqueeze(-1)
    return SideEvidence(**fields)


def call(
    delta_norm: float, settings: SelectionSettings | None = None, *, base: Any = None, **tuned: Any
) -> Calls:
    sides = {"tuned": evidence(**tuned), "base": evidence(**(base or {}))}
    dead = torch.tensor([False])
    return call_latents(
        torch.tensor([delta_norm], dtype=torch.float64), sides, settings or SelectionSettings(), dead=dead
    )


def test_a_latent_that_passes_every_clause_is_exclusive_to_the_side_of_its_norms() -> None:
    tuned, base = call(0.95), call(0.05)
    assert (tuned.call, tuned.exclusive_to) == (["exclusive"], ["tuned"])
    assert (base.call, base.exclusive_to) == (["exclusive"], ["base"])


@pytest.mark.parametrize(
    ("change", "clause", "expected"),
    [
        ({"nu_error": 0.2}, "nu_error", "not_exclusive"),
        ({"nu_error": -0.25}, "nu_error", "not_exclusive"),
        ({"nu_reconstruction": 0.5}, "nu_reconstruction", "not_exclusive"),
        ({"nu_reconstruction": -3.0}, "nu_reconstruction", "not_exclusive"),
        ({"beta_error": 0.0}, "beta_error_not_positive", "undecided"),
        ({"beta_reconstruction": -1.0}, "beta_reconstruction_not_positive", "undecided"),
        ({"beta_error_low": -0.1}, "beta_error_interval", "undecided"),
        ({"beta_error_low": float("nan")}, "beta_error_interval", "undecided"),
        ({"n_active": 49}, "min_tokens", "undecided"),
        ({"n_documents": 9}, "min_documents", "undecided"),
    ],
)
def test_each_clause_stops_the_latent_and_is_counted(change: dict, clause: str, expected: str) -> None:
    found = call(0.95, **change)
    assert found.call == [expected]
    assert found.exclusive_to == [None]
    assert found.failing["tuned"][clause] == 1
    assert found.rejected["tuned"][clause] == 1
    assert found.rejected["tuned"]["exclusive"] == 0


def test_the_activation_clause_is_off_until_it_has_a_limit() -> None:
    # a copy of 0.3 of the size, split between reconstruction (0.1) and error (0.05): both clauses let it pass
    assert call(0.95).call == ["exclusive"]
    assert "nu_activation" not in SelectionSettings().identity()
    strict = SelectionSettings(nu_activation=0.25)
    assert strict.identity()["nu_activation"] == 0.25
    found = call(0.95, strict)
    assert (found.call, found.rejected["tuned"]["nu_activation"]) == (["not_exclusive"], 1)
    assert call(0.95, SelectionSettings(nu_activation=0.31)).call == ["exclusive"]
    assert call(0.95, strict, nu_activation=0.1, beta_activation=-1.0).call == ["undecided"]
    sure = SelectionSettings(nu_activation=0.31, certainty="interval")
    assert call(0.95, sure).call == ["undecided"]  # 0.25 to 0.35 holds the limit


def test_a_base_side_latent_with_negative_ratios_is_not_tuned_exclusive() -> None:
    found = call(0.2, nu_error=-8.0, nu_reconstruction=-3.0, base={"nu_error": 0.9})
    assert found.call == ["not_exclusive"]
    assert found.rejected["tuned"]["delta_norm"] == 1


def test_a_latent_of_equal_norms_is_claimed_by_neither_side() -> None:
    assert call(0.5).call == ["not_exclusive"]


@pytest.mark.parametrize("method", ["minder", "norm", "both"])
def test_without_documents_no_latent_is_exclusive_for_min_documents_cannot_be_known(method: Any) -> None:
    nothing = float("nan")
    without = {"n_documents": None, "beta_error_low": nothing, "beta_reconstruction_low": nothing}
    found = call(0.95, SelectionSettings(method=method), base=without, **without)
    assert (found.call, found.exclusive_to) == (["undecided"], [None])
    assert found.failing["tuned"]["min_documents"] == 1
    assert "beta_error_interval" not in found.failing["tuned"]
    assert call(0.5, base=without, **without).call == ["not_exclusive"]  # the norms have rejected it


def test_norm_looks_at_norms_and_counts_alone() -> None:
    settings = SelectionSettings(method="norm")
    assert call(0.95, settings, nu_error=5.0).call == ["exclusive"]
    assert call(0.85, settings).call == ["not_exclusive"]
    assert call(0.95, settings, n_active=3).call == ["undecided"]


@pytest.mark.parametrize("method", ["norm", "both"])
@pytest.mark.parametrize(("delta_norm", "side"), [(0.6, "tuned"), (0.4, "base")])
def test_what_the_norms_reject_is_not_exclusive_however_few_its_tokens(
    method: Any, delta_norm: float, side: str
) -> None:
    few = {"n_active": 10, "beta_error": -1.0}
    found = call(delta_norm, SelectionSettings(method=method), base=few, **few)
    assert found.call == ["not_exclusive"]
    assert found.rejected[side]["norm_bin"] == 1


def test_a_tied_latent_has_equal_norms_and_is_not_exclusive_however_few_its_tokens() -> None:
    found = call(0.5, base={"n_active": 10}, n_active=10)
    assert found.call == ["not_exclusive"]
    assert found.rejected["tuned"]["delta_norm"] == found.rejected["base"]["delta_norm"] == 1


def test_both_needs_norms_and_latent_scaling() -> None:
    settings = SelectionSettings(method="both")
    assert call(0.95, settings).call == ["exclusive"]
    assert call(0.85, settings).call == ["not_exclusive"]
    assert call(0.95, settings, nu_error=5.0).call == ["not_exclusive"]


@pytest.mark.parametrize(
    ("bounds", "expected"),
    [
        ((0.0, 0.1), "exclusive"),
        ((0.1, 0.3), "undecided"),
        ((0.25, 0.3), "not_exclusive"),
        ((-0.9, -0.3), "not_exclusive"),
    ],
)
def test_certainty_interval_asks_the_whole_interval(bounds: tuple[float, float], expected: str) -> None:
    settings = SelectionSettings(certainty="interval")
    assert call(0.95, settings, nu_error_bounds=bounds).call == [expected]


def test_rejections_add_up_to_all_latents() -> None:
    found = call(0.3, nu_error=9.0, n_active=1)
    assert sum(found.rejected["tuned"].values()) == 1
    assert found.rejected["tuned"]["delta_norm"] == 1


def test_dead_latents_are_undecided_and_counted_first() -> None:
    calls = call_latents(
        torch.tensor([torch.nan], dtype=torch.float64),
        {"tuned": evidence(n_active=0), "base": evidence(n_active=0)},
        SelectionSettings(),
        dead=torch.tensor([True]),
    )
    assert calls.call == ["undecided"]
    assert calls.rejected["tuned"]["dead"] == 1


def test_kinds_follow_the_bins_and_silence() -> None:
    delta = torch.tensor([0.05, 0.5, 0.95, 0.3, 0.5, 0.7])
    alive = torch.tensor([True, True, True, True, False, True])
    assert kinds(delta, alive=alive) == ["base_only", "shared", "tuned_only", "other", "dead", "other"]


def test_settings_are_read_without_torch_pandas_or_scipy() -> None:
    """What `run.py --help` and `action=plan` import of core and training."""
    modules = "core.dictionary core.exclusive_call core.sparsity training.settings core.selection".split()
    program = f"import sys; [__import__('crossdiff.' + name) for name in {modules}]"
    program += "; print(*{'torch', 'pandas', 'scipy', 'pytorch_lightning'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
