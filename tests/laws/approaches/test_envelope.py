"""The lower envelope of runs: planted surfaces, whole curves, refusals."""

from __future__ import annotations

import numpy as np
import pytest

from harness.laws.approaches.envelope import fit_envelope, size_curves
from harness.laws.collect import collect
from harness.laws.config import FitConfig, LossUnit, ParamsKind
from harness.laws.observations import FLOPS_6ND, Observations, Row

from ...public_data import planted_sweep
from .designs import CHINCHILLA, EPOCH, SKEWED, Law, isoflop_design, optimal_tokens, with_two_seeds

QUIET = FitConfig(bootstraps=0)


def curves(law: Law, sizes: int = 9, points: int = 40) -> Observations:
    """Every size logged along its whole run, from 1 to 300 tokens a parameter."""
    a, b, e, alpha, beta = law
    rows = [
        Row(name=f"{n}/{d}", params=n, tokens=d, flops=None, loss=e + a / n**alpha + b / d**beta)
        for n in np.geomspace(1e7, 1e9, sizes)
        for d in n * np.geomspace(1, 300, points)
    ]
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)


@pytest.mark.parametrize("law", [CHINCHILLA, EPOCH, SKEWED])
def test_a_planted_allocation_is_found(law):
    """Without noise, between sizes 1.5 times apart, on a grid of 25 points a gap, 2 % each."""
    found = fit_envelope(isoflop_design(law), QUIET)
    assert found.reasons == ()
    assert found.allocation.exponent_a == pytest.approx(law[4] / (law[3] + law[4]), abs=3e-3)
    tokens = found.allocation.optimum(1e24, 0.9)["tokens"]
    assert tokens == pytest.approx(optimal_tokens(law, 1e24), rel=0.03)
    assert found.allocation.exponent_interval(0.9) is None


def test_whole_curves_are_read_between_their_points():
    """No budget is shared: the curves are interpolated over compute, then over size."""
    found = fit_envelope(curves(EPOCH), QUIET)
    assert len(found.usable) >= 8
    assert found.allocation.exponent_a == pytest.approx(0.51261, abs=0.005)
    tokens = found.allocation.optimum(1e20, 0.9)["tokens"]
    assert tokens == pytest.approx(optimal_tokens(EPOCH, 1e20), rel=0.03)


def test_a_curve_passes_through_its_points_and_not_above_its_neighbours():
    rows = curves(EPOCH, sizes=4, points=6)
    first = size_curves(rows)[0]
    log_loss = np.log(rows.loss)[None]
    for log_c, at in zip(first.log_c, first.rows, strict=True):
        assert first.log_loss(log_loss, log_c)[0] == pytest.approx(log_loss[0, at].mean())
    middle = first.log_loss(log_loss, (first.log_c[0] + first.log_c[1]) / 2)[0]
    assert log_loss[0, first.rows[1]][0] < middle < log_loss[0, first.rows[0]][0]


def test_seeds_of_a_cell_are_averaged():
    rows = isoflop_design(EPOCH, 4, 7)
    one, two = (fit_envelope(r, QUIET).allocation for r in (rows, with_two_seeds(rows)))
    assert two.exponent_a == pytest.approx(one.exponent_a, abs=1e-9)


@pytest.mark.parametrize(
    ("shift", "size"), [(40.0, "the largest size is best at 5"), (1 / 40, "the smallest size is best at 5")]
)
def test_an_envelope_of_one_end_is_refused(shift, size):
    found = fit_envelope(isoflop_design(CHINCHILLA, shift=shift), QUIET)
    assert found.allocation is None
    assert "interior minimum at 0 of 5" in found.reasons[0] and size in found.reasons[0]


def test_one_budget_and_too_few_sizes_are_refused():
    one = fit_envelope(isoflop_design(budgets=[1e18]), QUIET).reasons[0]
    assert "at 1 of 1 budgets, 3 budgets" in one
    assert "no budget is reached by 4 sizes" in fit_envelope(isoflop_design(points=3), QUIET).reasons[0]


def test_too_few_runs_are_refused():
    rows = isoflop_design(points=4, budgets=[1e18])
    assert "7 are needed" in fit_envelope(rows, QUIET).reasons[0]


def test_noise_widens_the_interval_and_the_truth_stays_inside():
    """Intervals of this approach are wide: the noise is added to rows that carry it already. Of 60 sweeps
    each of six designs, 97 % of the 90 % intervals held the truth."""
    widths = []
    for noise in (0.001, 0.01):
        held = 0
        for seed in range(8):
            rows = isoflop_design(EPOCH, 8, 11, noise=noise, seed=seed)
            low, high = fit_envelope(rows, FitConfig(bootstraps=100)).allocation.exponent_interval(0.9)
            held += low <= 0.51261 <= high
        assert held >= 6
        widths.append(high - low)
    assert widths[1] > 2 * widths[0]


def test_given_noise_is_used_as_given():
    rows = isoflop_design(EPOCH, 4, 9)
    draws = np.random.default_rng(0).standard_normal((50, len(rows)))
    small, large = (fit_envelope(rows, QUIET, noise=s * draws).allocation for s in (1e-3, 1e-2))
    assert len(small.params.slope) == 51
    assert np.nanstd(large.params.slope) > 2 * np.nanstd(small.params.slope)


def test_a_grid_with_no_shared_budget_still_has_an_envelope():
    """Sizes times token counts: budgets are laid over the span where four sizes reach."""
    found = fit_envelope(planted_sweep(0, 0.0, sizes=8, horizons=8), QUIET)
    assert (len(found.optima), len(found.usable)) == (16, 7)
    assert found.allocation.exponent_a == pytest.approx(0.36 / 0.71, abs=0.02)
