"""Why published exponents differ: counting (Pearce & Song), warm-up, decay and tuning (Porian et al.)."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import numpy as np
import pytest

from harness.errors import WrongInput
from harness.laws.approaches.allocation import fit_line
from harness.laws.approaches.counting import (
    exponent_without_embeddings,
    fit_gamma,
    hoffmann_flops_per_token,
    local_exponent,
    non_embedding_params,
    optimal_flops,
    published_params,
    total_params,
)
from harness.laws.approaches.envelope import Envelope, fit_envelope
from harness.laws.collect import collect
from harness.laws.config import FitConfig, LossUnit, ParamsKind
from harness.laws.fit import fit_form
from harness.laws.forms.chinchilla import CHINCHILLA
from harness.laws.objective import Objective, Response
from harness.laws.observations import FLOPS_GIVEN, Observations, Row
from harness.laws.sources.files import read_table
from harness.laws.surfaces import Floats
from harness.laws.tables import observations_from_table

from ...public_data import public_table
from .designs import EPOCH

# Porian et al. 2406.19146

WARM_UP, DECAY = "base|warmup_short|decay_kaplan", "base|warmup_short|decay_chinchilla"
KAPLAN, TUNED = "base|warmup_long|decay_kaplan", "tuned|warmup_short|decay_const"
STEPS = {
    f"{KAPLAN}|count_kaplan|train": (0.8353, 0.8635),
    f"{KAPLAN}|count_standard|val": (0.7065, 0.6985),
    f"{WARM_UP}|count_standard|val": (0.6020, 0.6032),
    f"{DECAY}|count_standard|val": (0.5715, 0.5743),
    f"{TUNED}|count_standard|val": (0.4969, 0.5185),
}
ATTENTION = {KAPLAN: 0.7171, WARM_UP: 0.6223, DECAY: 0.5772, TUNED: 0.5053}
PUBLISHED = {
    **{f"rw|{setting}": exponents[0] for setting, exponents in STEPS.items()},
    **{f"owt2|{setting}": exponents[1] for setting, exponents in STEPS.items()},
    **{f"rw|{setting}|count_attention|train": exponent for setting, exponent in ATTENTION.items()},
}
"""The exponent a of RefinedWeb and OpenWebText2, and of counting attention."""

REPLICATES = 400

Deviation = Callable[[Floats], Floats]


def porian_rows(group: str) -> tuple[Observations, list[float]]:
    """The rows in the group's own count of N, and the nominal budgets."""
    rows = [row for row in read_table(public_table("porian_isoflop.csv")) if row["group"] == group]
    runs = [
        Row(
            name=row["run_id"],
            params=float(row["n_as_counted"]),
            tokens=float(row["tokens"]),
            flops=float(row["flops"]),
            loss=float(row["loss"]),
        )
        for row in rows
    ]
    observations = collect(runs, ParamsKind.total, LossUnit.nats_per_token, FLOPS_GIVEN)
    return observations, sorted({float(row["flop_budget"]) for row in rows})


def constant(group: str) -> Deviation:
    """The noise behind the published optima: .002 nats on RefinedWeb and .01 on OpenWebText2, at every
    loss. The text says .005 up to a loss of 3, growing to .1 at 6; the published spreads of ln N* follow
    the constants (to 5 %) and not the text (up to 120 % off)."""
    return lambda loss: np.full_like(loss, 0.002 if group.startswith("rw") else 0.01)


def growing(loss: Floats) -> Floats:
    """The noise of the text."""
    return np.exp(np.interp(np.log(loss), np.log([3, 6]), np.log([0.005, 0.1])))


def porian_fit(group: str, deviation: Deviation) -> Envelope:
    """`deviation` is the noise in nats as a function of the loss."""
    observations, budgets = porian_rows(group)
    draws = np.random.default_rng(0).standard_normal((REPLICATES, len(observations)))
    noise = np.log1p(draws * deviation(observations.loss) / observations.loss)
    return fit_envelope(observations, FitConfig(), budgets, noise)


@functools.cache
def published_method(group: str) -> Envelope:
    return porian_fit(group, constant(group))


def reported(table: str, group: str) -> list[dict[str, str]]:
    return [row for row in read_table(public_table(table)) if row["group"] == group]


@pytest.mark.parametrize("group", PUBLISHED)
def test_exponents_of_porian_et_al(group):
    """Within .0025 (measured: .0020 at most, .0008 in the median): medians over other draws of the noise
    step from one point of the grid to the next. The ends of the 95 % intervals agree to .006."""
    found = published_method(group)
    assert found.allocation.exponent_a == pytest.approx(PUBLISHED[group], abs=0.0025)
    ends = {row["fit"]: float(row["n_exponent"]) for row in reported("porian_fits_reported.csv", group)}
    published = [ends["bootstrap_weighted_2.5pct"], ends["bootstrap_weighted_97.5pct"]]
    assert found.allocation.exponent_interval(0.95) == pytest.approx(published, abs=0.008)


def test_optima_of_porian_et_al():
    """N* at every budget where one is reported: within 2 % of it, but for flat minima, half a gap off."""
    away, extra = [], 0
    for group in PUBLISHED:
        found = published_method(group)
        rows = reported("porian_optima_reported.csv", group)
        stars = {float(row["flop_budget"]): float(row["n_star"]) for row in rows if row["n_star"]}
        extra += sum(o.flops not in stars for o in found.usable)
        away += [abs(o.log_n[0] - math.log(stars[o.flops])) for o in found.usable if o.flops in stars]
    assert extra == 0
    assert np.median(away) < 0.002
    assert np.quantile(away, 0.9) < 0.02
    assert max(away) < 0.1


@pytest.mark.parametrize("corpus", ["rw", "owt2"])
def test_the_noise_of_the_text_gives_the_same_story(corpus):
    """Measured: .0098 away at most, .0048 in the median; a larger noise tips flat minima to a neighbour."""
    groups = [f"{corpus}|{setting}" for setting in STEPS]
    found = [porian_fit(group, growing).allocation.exponent_a for group in groups]
    assert found == pytest.approx([PUBLISHED[group] for group in groups], abs=0.012)
    assert found == sorted(found, reverse=True)


# Pearce & Song 2406.12907

SIZES = np.logspace(2.9, 9.2, 20)
"""Twenty models from 768 to 1.5e9 parameters without embeddings."""

CHINCHILLA_TEX = (406.4, 410.7, 1.6934, 0.3392, 0.2849)


def best_of_models(
    law: tuple[float, float, float, float, float], sizes: np.ndarray, budgets: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """The size (as counted in `sizes`) and loss of the best model at each budget, on the authors' grid of
    a thousand token counts, the nearest to the budget taken."""
    a, b, e, alpha, beta = law
    grid = np.logspace(6, 25, 1000)
    nearest = np.abs(6 * sizes[:, None] * grid - budgets[:, None, None]).argmin(axis=2)
    loss = e + a / total_params(SIZES) ** alpha + b / grid[nearest] ** beta
    return sizes[loss.argmin(axis=1)], loss.min(axis=1)


def slope(x: np.ndarray, y: np.ndarray) -> float:
    return float(fit_line(np.log(x), np.log(y)[None], np.ones(len(x))).slope[0])


@pytest.mark.parametrize(
    ("law", "body", "total", "loss_slope"),
    [(EPOCH, 0.7805, 0.5154, -0.0690), (CHINCHILLA_TEX, 0.7388, 0.4577, -0.0659)],
    ids=["epoch", "chinchilla"],
)
def test_one_surface_gives_both_exponents(law, body, total, loss_slope):
    budgets = np.logspace(12.95, 20.7, 100)
    sizes, loss = best_of_models(law, SIZES, budgets)
    assert slope(budgets, sizes) == pytest.approx(body, abs=5e-5)
    assert slope(budgets, loss) == pytest.approx(loss_slope, abs=5e-5)
    budgets = np.logspace(14, 20.7, 100)
    sizes, loss = best_of_models(law, total_params(SIZES), budgets)
    assert slope(budgets, sizes) == pytest.approx(total, abs=5e-5)
    if law is EPOCH:
        assert slope(budgets, loss) == pytest.approx(-0.0966, abs=5e-5)


def test_the_closed_form_tends_to_that_of_all_parameters():
    """The limit is beta/(alpha + beta) = .5126; the published .5147 is its slope over 1.2e10 to 1e11."""
    large = np.logspace(2, 11, 100)[90:]
    a, b, _, alpha, beta = EPOCH
    assert slope(optimal_flops(large, a, b, alpha, beta), large) == pytest.approx(0.5147, abs=5e-5)
    ends = local_exponent(np.array([1e-3, 1e20]), alpha, beta)
    assert ends == pytest.approx([beta / (alpha / 3 + beta), beta / (alpha + beta)], rel=1e-4)


def test_the_closed_form_is_the_minimum():
    a, b, e, alpha, beta = EPOCH
    for size in (1e4, 1e6, 1e9):
        budget = float(optimal_flops(np.array(size), a, b, alpha, beta))
        near = size * np.array([0.97, 1.0, 1.03])
        loss = e + a / total_params(near) ** alpha + b / (budget / 6 / near) ** beta
        assert loss.argmin() == 1


def test_the_local_exponent_is_the_derivative():
    a, b, _, alpha, beta = EPOCH
    for size in (1e3, 1e6, 1e9):
        pair = size * np.exp(np.array([-1e-4, 1e-4]))
        low, high = np.log(optimal_flops(pair, a, b, alpha, beta))
        assert local_exponent(np.array(size), alpha, beta) == pytest.approx(2e-4 / (high - low), rel=1e-6)


def test_what_the_other_counting_would_have_found():
    """Kaplan's range of sizes turns .51 into .75 (.78 with his discrete models), large models stay at .51."""
    _, _, _, alpha, beta = EPOCH
    assert exponent_without_embeddings(alpha, beta, (768, 1.5e9)) == pytest.approx(0.749, abs=1e-3)
    assert exponent_without_embeddings(alpha, beta, (1e10, 1e12)) == pytest.approx(0.513, abs=2e-3)
    assert exponent_without_embeddings(alpha, beta, (1e3, 1e9), gamma=1e-9) == pytest.approx(
        beta / (alpha + beta)
    )


def test_the_two_countings_invert_each_other():
    assert non_embedding_params(total_params(SIZES)) == pytest.approx(SIZES, rel=1e-12)
    assert fit_gamma(SIZES, total_params(SIZES, 3e4)) == pytest.approx(3e4)
    with pytest.raises(WrongInput, match="must exceed"):
        fit_gamma(SIZES, SIZES)


def test_gamma_of_the_chinchilla_models():
    """47491 is published for the models of Hoffmann et al., but a fifth too low at the exponent 1/3 (it fits
    them at .34); the exponent it predicts hardly moves."""
    rows = read_table(public_table("chinchilla_epoch.csv"))
    counts = np.array([[float(row[f"params_{kind}"]) for kind in ("non_embedding", "total")] for row in rows])
    gamma = fit_gamma(*counts.T)
    assert gamma == pytest.approx(57_000, rel=0.01)
    found = [exponent_without_embeddings(0.3478, 0.3658, (768, 1.5e9), g) for g in (47491, gamma)]
    assert found[1] == pytest.approx(found[0], abs=0.01)


# Hoffmann et al. 2203.15556


def test_the_published_table_of_approach_2():
    """Sizes and tokens as printed; log10 D = 1.04096 log10 N + .93539 through them."""
    sizes = np.array([4e8, 1e9, 1e10, 67e9, 175e9, 280e9, 520e9, 1e12, 1e13])
    tokens = np.array([7.7e9, 20e9, 219.5e9, 1.7e12, 4.3e12, 7.1e12, 13.4e12, 26.5e12, 292e12])
    line = fit_line(np.log10(sizes), np.log10(tokens)[None], np.ones(9))
    assert (line.slope[0], line.intercept[0]) == pytest.approx((1.04096, 0.93539), abs=5e-6)


# Least squares of the loss on the digitised runs


def test_scalefit_below_1e21():
    """The apple ml-scalefit run: residuals of L itself, 217 rows, to every digit printed."""
    table = public_table("chinchilla_epoch.csv")
    rows = observations_from_table(table, ["excluded_by_epoch=0", "flops<1e21"])
    columns = {"params": rows.params, "tokens": rows.tokens}
    fit = fit_form(CHINCHILLA, columns, rows.loss, Objective(Response.loss, math.inf))
    published = {"E": 1.9051, "alpha": 0.3511, "beta": 0.4587}
    assert len(rows) == 217
    assert {name: fit.params[name] for name in published} == pytest.approx(published, abs=5e-5)
    assert 2 * fit.objective == pytest.approx(0.062414, abs=5e-7)


def test_published_counts():
    """GPT-2 by its own count, and the first row of Hoffmann et al.'s table A4 (C over 6ND)."""
    assert published_params(50257, 768, 12, 3072, relative_positions=False) == 123_653_376
    n = published_params(32000, 640, 10, 2560, relative_positions=True)
    assert hoffmann_flops_per_token(2048, 640, 10, 10, 2560) / (6 * n) == pytest.approx(1.025036, abs=5e-7)
