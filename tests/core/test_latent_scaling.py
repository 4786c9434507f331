"""Latent scaling against brute force, by hand, and under every way of cutting the stream."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pandas as pd
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import crossdiff
from crossdiff.core.crosscoder import Crosscoder
from crossdiff.core.dictionary import DictionarySettings
from crossdiff.core.exclusive_call import SelectionSettings
from crossdiff.core.latent_scaling import ScalingSums, empty_sums, in_dtype
from crossdiff.core.latent_table import latent_scaling, latent_table
from crossdiff.core.normaliser import Normaliser

N_LATENTS, D_MODEL, N_TOKENS, DEAD = 48, 12, 3000, 5
TARGETS = ("activation", "reconstruction", "error")


@pytest.fixture(scope="module")
def crosscoder() -> Crosscoder:
    generator = torch.Generator().manual_seed(0)
    found = Crosscoder(DictionarySettings(n_latents=N_LATENTS), n_models=2, d_model=D_MODEL)
    found.initialise_(generator)
    with torch.no_grad():
        found.decoder += 0.4 * torch.randn(found.decoder.shape, generator=generator)
        found.decoder_bias += 0.2 * torch.randn(2, D_MODEL, generator=generator)
        found.encoder_bias[DEAD] = -1000
        found.threshold.fill_(2.0)
    found.normaliser = Normaliser.from_statistics(
        torch.randn(2, D_MODEL, generator=generator).double(),
        torch.full((2, D_MODEL), 3.0).double(),
        target_rms=4.0,
    )
    return found


@pytest.fixture(scope="module")
def x() -> Tensor:
    return 2 * torch.randn(N_TOKENS, 2, D_MODEL, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def document() -> Tensor:
    return torch.arange(N_TOKENS) // 30


@torch.no_grad()
def brute_force(crosscoder: Crosscoder, x: Tensor) -> dict[str, Tensor]:
    """argmin_b sum_t |y_t - b f_t d|^2 by the definition, one full [token, d] regressor per latent."""
    exact = in_dtype(crosscoder, torch.float64)
    code, xn = exact.encode(x.double()), exact.normaliser.normalise(x.double())
    x_hat = exact.decode_normalised(code)
    found = {f"beta_{t}_{m}{p}": [] for t in TARGETS for m in ("base", "tuned") for p in ("", "_baseprobe")}
    for j in range(N_LATENTS):
        for probe, suffix in ((1, ""), (0, "_baseprobe")):
            regressor = code[:, j, None] * exact.decoder[j, probe]
            for model, name in ((0, "base"), (1, "tuned")):
                own = code[:, j, None] * exact.decoder[j, model]
                targets = (xn[:, model], x_hat[:, model], xn[:, model] - (x_hat[:, model] - own))
                for target, y in zip(TARGETS, targets, strict=True):
                    beta = (regressor * y).sum() / regressor.square().sum()
                    found[f"beta_{target}_{name}{suffix}"].append(beta)
    return {name: torch.stack(values) for name, values in found.items()}


def column(table: pd.DataFrame, name: str) -> Tensor:
    return torch.tensor(table[name].to_numpy(dtype="float64"))


def worst(table: pd.DataFrame, expected: dict[str, Tensor]) -> float:
    differences = [(column(table, name) - beta).abs() / (1 + beta.abs()) for name, beta in expected.items()]
    return float(torch.stack(differences).nan_to_num(0).max())


def test_all_betas_equal_brute_force_in_float64(crosscoder: Crosscoder, x: Tensor) -> None:
    assert worst(latent_scaling(crosscoder, x.split(700)), brute_force(crosscoder, x)) < 1e-10


def test_all_betas_equal_brute_force_in_float32_to_rounding(crosscoder: Crosscoder, x: Tensor) -> None:
    table = latent_scaling(crosscoder, x.split(700), dtype=torch.float32)
    assert worst(table, brute_force(crosscoder, x)) < 5e-6


def test_nu_is_base_over_tuned_for_the_tuned_probe_and_inverted_for_the_base_probe(
    crosscoder: Crosscoder, x: Tensor
) -> None:
    table, beta = latent_scaling(crosscoder, [x]), brute_force(crosscoder, x)
    for target in TARGETS:
        nu = beta[f"beta_{target}_base"] / beta[f"beta_{target}_tuned"]
        inverted = beta[f"beta_{target}_tuned_baseprobe"] / beta[f"beta_{target}_base_baseprobe"]
        for name, expected in ((f"nu_{target}", nu), (f"nu_{target}_baseprobe", inverted)):
            relative = (column(table, name) - expected).abs() / (1 + expected.abs())
            assert relative.nan_to_num(0).max() < 1e-9


def test_a_dead_latent_has_no_betas_and_counts_of_zero(
    crosscoder: Crosscoder, x: Tensor, document: Tensor
) -> None:
    row = latent_scaling(crosscoder, [(x, document)]).iloc[DEAD]
    assert row["n_active"] == row["n_documents"] == row["density"] == 0
    assert row["kind"] == "dead"
    assert row["call"] == "undecided"
    ratios = [name for name in row.index if name.startswith(("beta", "nu"))]
    assert row[[*ratios, "largest_code"]].isna().all()
    assert not math.isnan(row["norm_base"])


def test_counts_are_those_of_the_dense_code(crosscoder: Crosscoder, x: Tensor, document: Tensor) -> None:
    table = latent_scaling(crosscoder, [(x, document)])
    active = in_dtype(crosscoder, torch.float64).encode(x.double()) > 0
    assert column(table, "n_active").tolist() == active.sum(0).tolist()
    by_document = active.view(-1, 30, N_LATENTS).any(1).sum(0)
    assert column(table, "n_documents").tolist() == by_document.tolist()
    assert torch.allclose(column(table, "density"), active.double().mean(0))
    largest = in_dtype(crosscoder, torch.float64).encode(x.double()).amax(0)
    assert torch.allclose(
        column(table, "largest_code"), largest.where(largest > 0, torch.nan), equal_nan=True
    )


@pytest.mark.parametrize("cut", ["one batch", "small batches", "shuffled"])
def test_the_table_does_not_depend_on_batches_or_order(
    crosscoder: Crosscoder, x: Tensor, document: Tensor, cut: str
) -> None:
    order = torch.randperm(N_TOKENS, generator=torch.Generator().manual_seed(2))
    size = {"one batch": N_TOKENS, "small batches": 17, "shuffled": 333}[cut]
    rows = order if cut == "shuffled" else torch.arange(N_TOKENS)
    expected = latent_scaling(
        crosscoder, [(part, d) for part, d in zip(x.split(500), document.split(500), strict=True)]
    )
    found = latent_scaling(crosscoder, [(x[part], document[part]) for part in rows.split(size)])
    same(found, expected)


def same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    for name in expected.columns:
        if expected[name].dtype.kind == "f":
            difference = (column(found, name) - column(expected, name)).abs()
            bound = 1e-10 if name.startswith("beta") else 1e-8  # a ratio of betas magnifies their rounding
            assert (difference / (1 + column(expected, name).abs())).nan_to_num(0).max() < bound, name
            assert (found[name].isna() == expected[name].isna()).all()
        else:
            assert (found[name].fillna("") == expected[name].fillna("")).all(), name


def test_merged_sums_of_two_workers_equal_one_pass(
    crosscoder: Crosscoder, x: Tensor, document: Tensor
) -> None:
    exact = in_dtype(crosscoder, torch.float64)
    parts = [empty_sums(exact, documents=True) for _ in range(3)]
    for part, rows in zip(parts, (range(1000), range(1000, 1015), range(1015, N_TOKENS)), strict=True):
        index = torch.tensor(rows)  # 1000 and 1015 lie inside a document
        part.add(exact, x[index].double(), document=document[index], template=document[index] % 2 == 0)
    merged = parts[2]
    merged.merge(parts[0])
    merged.merge(parts[1])
    same(latent_table(exact, merged), latent_scaling(crosscoder, [(x, document)]))
    assert merged.n_tokens == N_TOKENS
    assert merged.fit is not None
    assert merged.fit.l0() == pytest.approx(float((exact.encode(x.double()) > 0).double().sum(1).mean()))


def single_latent(base: list[float], tuned: list[float]) -> Crosscoder:
    """One latent that reads the tuned model's first component; identity normaliser, threshold 0."""
    crosscoder = Crosscoder(DictionarySettings(n_latents=1), n_models=2, d_model=2)
    with torch.no_grad():
        crosscoder.encoder[0] = torch.tensor([[0.0, 0.0], [1.0, 0.0]])
        crosscoder.decoder[0] = torch.tensor([base, tuned])
        crosscoder.threshold.fill_(0.0)
    return crosscoder


def test_betas_worked_out_by_hand() -> None:
    # codes f = 1, 2, 0; tuned direction d = (2, 0), D = 4; C = 1 + 4 = 5
    crosscoder = single_latent(base=[1.0, 0.0], tuned=[2.0, 0.0])
    x = torch.tensor([[[3.0, 9.0], [1.0, 0.0]], [[1.0, 9.0], [2.0, 5.0]], [[7.0, 7.0], [-1.0, 3.0]]])
    row = latent_scaling(crosscoder, [x]).iloc[0]
    # P_base = 1*(3*2) + 2*(1*2) = 10, P_tuned = 1*2 + 2*4 = 10: beta = 10 / (5*4)
    assert row["beta_activation_base"] == pytest.approx(0.5)
    assert row["beta_activation_tuned"] == pytest.approx(0.5)
    # x_hat_base = f (1, 0): R = (1 + 4) * 2 = 10; x_hat_tuned = f (2, 0): R = 5 * 4 = 20
    assert row["beta_reconstruction_base"] == pytest.approx(0.5)
    assert row["beta_reconstruction_tuned"] == pytest.approx(1.0)
    # error: (P - R)/(C D) + <d_base, d>/D = 0 + 2/4, and (10 - 20)/20 + 1
    assert row["beta_error_base"] == pytest.approx(0.5)
    assert row["beta_error_tuned"] == pytest.approx(0.5)
    assert row["nu_error"] == pytest.approx(1.0)
    assert row["nu_reconstruction"] == pytest.approx(0.5)
    # base direction (1, 0) as the probe, D = 1: P_base = 3 + 2 = 5, P_tuned = 1 + 4 = 5
    assert row["beta_activation_base_baseprobe"] == pytest.approx(1.0)
    assert row["beta_activation_tuned_baseprobe"] == pytest.approx(1.0)
    assert row["beta_reconstruction_tuned_baseprobe"] == pytest.approx(2.0)
    assert row["nu_reconstruction_baseprobe"] == pytest.approx(2.0)
    assert row["n_active"] == 2
    assert math.isnan(row["n_documents"])
    assert math.isnan(row["nu_error_low"])


def test_complete_shrinkage_gives_a_high_nu_error_and_decoupling_a_high_nu_reconstruction() -> None:
    generator = torch.Generator().manual_seed(3)
    strength = torch.rand(2000, 1, generator=generator) + 0.5
    # shrinkage: the base model holds the direction too, the dictionary's base decoder does not
    x = torch.stack([torch.cat([strength, 0 * strength], 1)] * 2, dim=1)
    batch = (x, torch.arange(len(x)) // 20)
    shrunken = latent_scaling(single_latent(base=[0.0, 0.0], tuned=[1.0, 0.0]), [batch]).iloc[0]
    assert shrunken["nu_error"] == pytest.approx(1.0)
    assert shrunken["nu_reconstruction"] == pytest.approx(0.0)
    assert shrunken["call"] == "not_exclusive"
    # decoupling: a second, base-only latent rebuilds the direction in the base model
    decoupled = Crosscoder(DictionarySettings(n_latents=2), n_models=2, d_model=2)
    with torch.no_grad():
        decoupled.encoder[0, 1, 0] = decoupled.encoder[1, 0, 0] = 1
        decoupled.decoder[0, 1, 0] = decoupled.decoder[1, 0, 0] = 1
        decoupled.threshold.fill_(0.0)
    row = latent_scaling(decoupled, [batch]).iloc[0]
    assert row["kind"] == "tuned_only"
    assert row["nu_error"] == pytest.approx(0.0, abs=1e-6)
    assert row["nu_reconstruction"] == pytest.approx(1.0)
    assert row["call"] == "not_exclusive"


def test_a_latent_of_the_tuned_model_alone_is_called_exclusive_to_it() -> None:
    strength = torch.rand(2000, 1, generator=torch.Generator().manual_seed(4)) + 0.5
    noise = 0.01 * torch.randn(2000, 2, generator=torch.Generator().manual_seed(5))
    x = torch.stack([noise, torch.cat([strength, 0 * strength], 1)], dim=1)
    crosscoder = single_latent(base=[0.0, 0.0], tuned=[1.0, 0.0])
    row = latent_scaling(crosscoder, [(x, torch.arange(2000) // 20)]).iloc[0]
    assert (row["call"], row["exclusive_to"], row["kind"]) == ("exclusive", "tuned", "tuned_only")
    assert row["nu_error_low"] <= row["nu_error"] <= row["nu_error_high"]


def test_activations_of_another_shape_are_refused(crosscoder: Crosscoder) -> None:
    with pytest.raises(ValueError, match=r"\[token, 2 models, 12 wide\]"):
        latent_scaling(crosscoder, [torch.zeros(4, 2, 13)])


def test_an_unset_threshold_is_refused() -> None:
    unset = Crosscoder(DictionarySettings(n_latents=4), n_models=2, d_model=3)
    with pytest.raises(ValueError, match="threshold"):
        latent_scaling(unset, [torch.zeros(4, 2, 3)])


def test_batches_with_and_without_documents_are_refused(crosscoder: Crosscoder, x: Tensor) -> None:
    with pytest.raises(ValueError, match="all or none"):
        latent_scaling(crosscoder, [(x[:10], torch.zeros(10, dtype=torch.int64)), x[10:]])


def test_no_batch_at_all_leaves_every_latent_dead(crosscoder: Crosscoder) -> None:
    table = latent_scaling(crosscoder, [])
    assert set(table["kind"]) == {"dead"}
    assert table["density"].isna().all()


def test_state_is_linear_in_latents_and_free_of_tokens_and_width() -> None:
    sums = ScalingSums(1000, 2)
    total = sum(value.nbytes for value in vars(sums).values() if isinstance(value, Tensor))
    assert total * 114_688 / 1000 < 200e6  # bytes at paper size


class Largest(TorchDispatchMode):
    """Remembers the largest number of elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for item in found if isinstance(found, tuple | list) else [found]:
            if isinstance(item, Tensor) and item.layout == torch.strided:
                self.numel = max(self.numel, item.numel())
        return found


def test_no_tensor_has_latents_times_tokens_times_width() -> None:
    n_latents, n_tokens, d_model = 6000, 512, 32
    crosscoder = Crosscoder(DictionarySettings(n_latents=n_latents), n_models=2, d_model=d_model)
    crosscoder.initialise_(torch.Generator().manual_seed(0))
    crosscoder.requires_grad_(requires_grad=False)
    crosscoder.threshold.fill_(3.0)
    x = torch.randn(n_tokens, 2, d_model, generator=torch.Generator().manual_seed(1))
    sums = empty_sums(crosscoder, documents=True)
    with Largest() as largest:
        sums.add(crosscoder, x, document=torch.arange(n_tokens) // 64)
    assert sums.n_active.sum() > 0
    # a slice of at most 4,096 latents by at most 1,024 tokens, or the sums themselves: 8 x 20 x latents
    assert largest.numel <= max(4096 * n_tokens, 8 * 20 * n_latents)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_one_activation_that_is_not_finite_is_refused_with_its_model(
    crosscoder: Crosscoder, x: Tensor, document: Tensor, value: float, dtype: torch.dtype
) -> None:
    bad = x.clone()
    bad[7, 1, 3] = value
    with pytest.raises(ValueError, match=r"activations of model\(s\) \[1\] .* 3,000 tokens .* dtype=float32"):
        latent_scaling(crosscoder, [(bad, document)], dtype=dtype)


def test_a_crosscoder_with_a_damaged_weight_is_refused(crosscoder: Crosscoder, x: Tensor) -> None:
    damaged = in_dtype(crosscoder, torch.float64)
    with torch.no_grad():
        damaged.decoder_bias[0, 0] = math.nan
    with pytest.raises(ValueError, match="weights are damaged"):
        latent_scaling(damaged, [x])


def test_the_page_on_the_report_describes_every_column_in_the_tables_order(
    crosscoder: Crosscoder, x: Tensor, document: Tensor
) -> None:
    page = (Path(crossdiff.__file__).parent / "docs" / "report.md").read_text()
    section = page.split("## The latent table")[1].split("\n## ")[0]
    described = [
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert described == list(latent_scaling(crosscoder, [(x, document)]).columns)


def test_two_families_have_their_betas_and_nothing_that_compares_directions(
    crosscoder: Crosscoder, x: Tensor, document: Tensor
) -> None:
    families = in_dtype(crosscoder, torch.float64)
    families.metadata = {"two_families": True}
    by_norm = SelectionSettings(method="norm", min_tokens=1, min_documents=1)
    one, two = (latent_scaling(m, [(x, document)], selection=by_norm) for m in (crosscoder, families))
    inside = [f"beta_{target}_{model}" for target in TARGETS for model in ("tuned", "base_baseprobe")]
    across = [f"beta_{target}_{model}" for target in TARGETS for model in ("base", "tuned_baseprobe")]
    ratios = [name for name in two.columns if name.startswith(("nu_", "drift"))]
    assert two[["decoder_cosine", *across, *ratios]].isna().all(axis=None)
    known = ["n_active", "norm_base", "norm_tuned", "delta_norm", "largest_code", *inside]
    pd.testing.assert_frame_equal(two[known], one[known])
    assert one["call"].equals(two["call"])
    with pytest.raises(ValueError, match="method=minder .* two families have no common directions"):
        latent_scaling(families, [(x, document)])
