"""Loss curves of one ladder: one curve at every size, and not where a rung's learning rate is wrong."""

from dataclasses import replace

import numpy as np
import pytest

from harness.forecast.collapse import check_collapse
from harness.forecast.config import ForecastConfig
from harness.forecast.engine import Target
from harness.forecast.gate import Verdict
from harness.forecast.inflight.tables import read_trajectories
from harness.forecast.inflight.trajectory import Metric, Schedule, Trajectory
from harness.forecast.predict import predict
from harness.laws.checks import Grade
from harness.laws.config import LawConfig, ParamsKind
from harness.laws.fit import fit_law
from harness.laws.tables import observations_from_table

from ..public_data import planted_sweep, public_table

FLOOR = 1.6
DECAY = Schedule(np.array([0.0, 10.0, 1000.0]), np.array([0.0, 1.0, 0.0]))


def ladder(wrong: int | None = None, noise: float = 0.002, seed: int = 0):
    """Every cell of a planted sweep as one ladder: 20 tokens per parameter, two seeds, five sizes. The curve
    falls as a power of the share that is done; that of the rung `wrong` falls too slowly at first."""
    rng = np.random.default_rng(seed)
    sweep = planted_sweep(seed, 0.0, sizes=5, horizons=2)
    params = np.repeat(2e4 * np.geomspace(1, 10, 5), 2)
    sweep = replace(sweep, params=params, tokens=20 * params, flops=120 * params**2)
    shares = np.linspace(0.01, 1, 200)
    curves = []
    for i in range(10):
        power = 0.1 if i // 2 != wrong else 0.25
        end = FLOOR + 40 / params[i] ** 0.35
        values = FLOOR + (end - FLOOR) * shares**-power * np.exp(noise * rng.standard_normal())
        values *= np.exp(0.004 * rng.standard_normal(len(shares)))
        curves.append(
            Trajectory(
                run_id=sweep.run_ids[i],
                steps=1000 * shares,
                values=values,
                end=1000.0,
                budget=float(sweep.flops[i]),
                schedule=DECAY,
                final=float(values[-1]),
                cell=str(i // 2),
            )
        )
    return sweep, curves


def test_a_ladder_with_one_learning_rate_wrong_does_not_collapse():
    sweep, curves = ladder()
    [check] = check_collapse(sweep, curves, FLOOR, 0.003)
    assert check.grade is Grade.ok and check.value < 2
    sweep, curves = ladder(wrong=3)
    [check] = check_collapse(sweep, curves, FLOOR, 0.003)
    assert check.grade is Grade.weak and check.value > 5
    assert "furthest off at 1.12e+05 parameters" in check.reason
    assert "5 sizes at 20 tokens per parameter do not collapse" in check.reason


def test_one_seed_is_measured_by_the_noise_of_the_final_losses():
    sweep, curves = ladder(wrong=3)
    [check] = check_collapse(sweep, curves[::2], FLOOR, 0.003)
    assert check.grade is Grade.weak
    [check] = check_collapse(sweep, curves[::2], FLOOR, 0.05)
    assert check.grade is Grade.ok


def test_what_is_no_ladder_is_not_judged():
    sweep, curves = ladder(wrong=3)
    assert check_collapse(sweep, [], FLOOR, 0.003) == []
    assert check_collapse(sweep, curves[:4], FLOOR, 0.003) == []  # two sizes
    grid = replace(sweep, tokens=sweep.tokens * np.geomspace(1, 100, 10))
    assert check_collapse(grid, curves, FLOOR, 0.003) == []
    steep = Schedule(DECAY.steps, np.array([0.0, 1.0, 0.5]))
    others = [replace(curve, schedule=steep) if i % 4 > 1 else curve for i, curve in enumerate(curves)]
    assert "3 sizes" in check_collapse(sweep, others, FLOOR, 0.003)[0].reason
    half = [curve.until(0.5) for curve in curves]
    assert check_collapse(sweep, half, FLOOR, 0.003) == []


def test_the_verdict_names_it():
    sweep, curves = planted_sweep(1, 0.002, sizes=6), ladder(wrong=3)[1]
    at = [int(i) for i in np.argsort(sweep.params, kind="stable")]
    tokens = np.where(np.isin(np.arange(len(sweep)), at[::4]), 20 * sweep.params, sweep.tokens)
    sweep = replace(sweep, tokens=tokens, loss=1.6 + 60 / sweep.params**0.35 + 300 / tokens**0.36)
    named = [replace(curve, run_id=sweep.run_ids[i]) for i, curve in zip(at[::4], curves[::2], strict=False)]
    target, config = Target(params=4e5, tokens=3e8), ForecastConfig(bootstraps=50)
    assert not any("collapse" in reason for reason in predict(sweep, target, config).reasons)
    found = predict(sweep, target, config, None, named)
    assert found.verdict is not Verdict.supported
    assert any("do not collapse" in reason for reason in found.reasons)


@pytest.mark.parametrize("slow", [False, True])
def test_the_olmo_ladder_collapses(slow):
    """arXiv:2412.04403: four sizes at 1, 2, 5 and 10 times Chinchilla's tokens. The same with a cosine too
    slow on one size does not."""
    runs = observations_from_table(
        public_table("olmo_ladder.csv"), ["repo_role=train"], ParamsKind.non_embedding
    )
    curves = read_trajectories(public_table("olmo_ladder_curves.csv"), Metric.loss, ["lr>0"], {}, None, None)
    if slow:
        curves = [
            replace(c, values=c.values * (1 + 0.05 * (1 - c.steps / c.end))) if c.run_id[:4] == "760M" else c
            for c in curves
        ]
    fit = fit_law(runs, LawConfig())
    [check] = check_collapse(runs, curves, fit.params["E"], 0.0003)
    assert check.grade is (Grade.weak if slow else Grade.ok)
