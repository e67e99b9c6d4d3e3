"""The reference is the procedure it claims to be, and `harness bench fit` measures what it says."""

import json

import numpy as np
import pytest

from harness.commands.bench import Settings, bench_fit
from harness.commands.bench_fit import fit_speed, planted_observations, total_error
from harness.commands.bench_growth import cost, growth
from harness.commands.reference import Gradients, build_objective, descend, grid, refit
from harness.config import compose_all
from harness.laws.config import LawConfig
from harness.laws.fit import solve
from harness.laws.tables import observations_from_table

from ..public_data import public_table

HOFFMANN = np.array([6.0073404, 6.0179186, 0.5267228, 0.33917084, 0.2849083])
"""Unrounded, from the source of arXiv:2203.15556."""


@pytest.fixture(scope="module")
def chinchilla():
    rows = observations_from_table(public_table("chinchilla_epoch.csv"), ["excluded_by_epoch=0"])
    return np.log(rows.params), np.log(rows.tokens), np.log(rows.loss)


def test_the_grid_is_that_of_the_replication():
    starts = grid()
    assert starts.shape == (4500, 5) and len(np.unique(starts, axis=0)) == 4500
    assert [sorted(set(column)) for column in starts[:, [0, 2, 3]].T] == [
        [0, 5, 10, 15, 20, 25],
        [-1, -0.5, 0, 0.5, 1],
        [0, 0.5, 1, 1.5, 2],
    ]


@pytest.mark.parametrize("gradients", Gradients)
def test_the_reference_reaches_the_published_optimum(chinchilla, gradients):
    """Besiroglu et al. 2404.10102: the objective at Hoffmann's constants and at the minimum."""
    objective = build_objective(gradients, *chinchilla)
    assert objective(HOFFMANN)[0] == pytest.approx(0.00123116, rel=1e-5)
    theta, value = descend(objective, np.array([20.0, 25.0, -1.0, 1.0, 0.0]))  # one of few that arrive
    assert value == pytest.approx(0.00101827402, rel=1e-5)
    assert theta[3:] == pytest.approx([0.34731, 0.36717], rel=0.01)


def test_both_gradients_are_the_slope_of_the_objective(chinchilla):
    analytic, taped = (build_objective(one, *chinchilla) for one in reversed(Gradients))
    for theta in (HOFFMANN, grid()[700], grid()[4321]):
        value, gradient = analytic(theta)
        assert taped(theta)[0] == pytest.approx(value, rel=1e-12)
        assert taped(theta)[1] == pytest.approx(gradient, rel=1e-9, abs=1e-12)
        slope = [(analytic(theta + h)[0] - analytic(theta - h)[0]) / 2e-6 for h in 1e-6 * np.eye(5)]
        assert slope == pytest.approx(gradient, rel=1e-4, abs=1e-7)


def test_a_resample_of_every_row_once_is_the_fit_itself(chinchilla):
    theta = refit(Gradients.analytic, chinchilla, np.ones(240), HOFFMANN)
    assert theta[3:] == pytest.approx([0.34731, 0.36717], rel=0.01)


def test_ours_is_no_worse_and_resamples_alike():
    rows = planted_observations()
    speed = fit_speed(rows, sample=0.002, turns=1)
    for one in speed.references:
        assert speed.ours.objective <= one.objective * (1 + 1e-9)
        same = speed.ours.standard_errors(len(one.theta))
        assert one.standard_errors() == pytest.approx(same, rel=0.05)
        assert one.seconds > 0 and one.seconds_error > 0
    assert len(speed.ours.theta) == 4000


def test_the_planted_law_is_found_in_the_planted_rows():
    fitted = solve(planted_observations(1000), LawConfig()).values
    assert fitted[2] == pytest.approx(1.817, rel=0.01)
    assert fitted[3:] == pytest.approx([0.348, 0.366], rel=0.03)


def test_a_total_from_all_parts_has_no_error_and_one_from_a_sample_has_the_textbooks():
    seconds = np.array([1.0, 2.0, 3.0, 6.0])
    assert total_error(seconds, 4) == 0
    spread = np.std(seconds, ddof=1)
    assert total_error(seconds, 400) == pytest.approx(400 * spread / 2 * np.sqrt(0.99))


def test_memory_is_measured_in_a_process_of_its_own():
    small, large = cost((50, 10)), cost((2000, 1000))
    assert large.peak_bytes > small.peak_bytes + 2000 * 1000 * 8
    assert large.peak_bytes < 2**31


def test_growth_is_a_slope(monkeypatch):
    seconds = {(10, 1): 1.0, (40, 1): 8.0}
    monkeypatch.setattr("harness.commands.bench_growth.bootstrap_seconds", seconds.__getitem__)
    assert growth(list(seconds), turns=3) == pytest.approx(1.5)


def test_a_share_must_be_a_share(harness, tmp_path):
    done = harness("bench", "fit", "sample=0", cwd=tmp_path)
    assert done.returncode == 2 and "sample=0" in done.stderr


@pytest.mark.parametrize("form", ["table", "json"])
def test_the_whole_bench_is_printed(monkeypatch, capsys, form):
    for name in ("LARGE", "MORE_ROWS", "MORE_BOOTSTRAPS"):
        monkeypatch.setattr(f"harness.commands.bench_growth.{name}", ((20, 10), (40, 10)))
    words = ["what=fit", "sample=0.0001", "repeats=1", f"format={form}"]
    bench_fit(compose_all("bench", Settings, [words])[0])
    shown = capsys.readouterr().out
    if form == "json":
        found = json.loads(shown)
        assert [one["ratio"] > 1 for one in found["references"]] == [True, True]
        assert set(found["slopes"]) == {"rows", "bootstraps"} and len(found["costs"]) == 2
    else:
        assert "0.0% were run" in shown and "20 x 10" in shown and "Cost grows as rows^" in shown
