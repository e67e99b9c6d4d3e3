"""Optimal learning rates and batch sizes: planted grids, edges, and a public grid of mixtures of experts."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from harness.errors import WrongInput
from harness.laws.config import FitConfig, ParamsKind
from harness.laws.fit import FitStatus
from harness.laws.observations import best_of_cell
from harness.laws.responses.optima import NoLaw, fit_batch_size, fit_learning_rate
from harness.laws.responses.rungs import Edge, Rung, rungs
from harness.laws.responses.source import Source
from harness.laws.responses.trials import Trials, trials_of
from harness.laws.responses.valley import valley
from harness.laws.tables import observations_from_table
from harness.report.responses import print_response

from ...public_data import public_table


def planted_lr(n: np.ndarray, d: np.ndarray) -> np.ndarray:
    return 1.79 * n**-0.713 * d**0.307


def planted_batch(d: np.ndarray) -> np.ndarray:
    return 0.58 * d**0.571


def grid(path: Path, noise: float = 0.0, shift: float = 1.0, batches: int = 5) -> Source:
    """Three sizes, three token counts, 7 x 5 settings around the planted optimum, which `shift` moves."""
    rng = np.random.default_rng(0)
    rows = []
    for n in (1e8, 3e8, 1e9):
        for d in (2e9, 8e9, 3.2e10):
            best, batch = float(planted_lr(n, d)), float(planted_batch(d))
            for i in range(-3, 4):
                for j in range(-(batches // 2), batches // 2 + 1):
                    lr, b = best * shift * 2 ** (0.5 * i), batch * 2.0**j
                    x, y = np.log(lr / best), np.log(b / batch)
                    bowl = 0.006 * x**2 + 0.002 * y**2 - 0.002 * x * y
                    loss = float(2.5 * np.exp(bowl + noise * rng.normal()))
                    rows.append(f"{n},{d},{lr!r},{b!r},{loss!r}")
    path.write_text("\n".join(["params_total,tokens,lr,batch_tokens,loss", *rows]))
    return Source(path=path)


def test_planted_laws_are_found_again(tmp_path):
    source = grid(tmp_path / "t.csv")
    lr, batch = (fit(source, FitConfig(bootstraps=0)) for fit in (fit_learning_rate, fit_batch_size))
    assert lr.params == pytest.approx({"c": 1.79, "a": -0.713, "b": 0.307}, rel=1e-6)
    assert batch.params == pytest.approx({"d": 0.58, "e": 0.571}, rel=1e-6)
    assert [cell["edge"] for cell in lr.to_json()["cells"]] == [""] * 9


def test_cells_are_printed(tmp_path, capsys):
    print_response(fit_learning_rate(grid(tmp_path / "t.csv"), FitConfig(bootstraps=0)).to_json())
    assert capsys.readouterr().out.count("inside") == 18  # of the rate and of the batch


def test_noise_is_seen_in_the_intervals(tmp_path):
    fit = fit_learning_rate(grid(tmp_path / "t.csv", noise=0.001), FitConfig(bootstraps=200))
    assert fit.status is FitStatus.identified
    found = fit.to_json([[7e9, 1e12]])
    for name, value in {"a": -0.713, "b": 0.307}.items():
        low, high = found["intervals"][name]
        assert low < value < high
        assert 0.002 < high - low < 0.3
    low, high = found["predictions"][0]["interval"]
    assert low < planted_lr(7e9, 1e12) < high


def test_optima_at_the_edge_are_left_out_and_refused(tmp_path):
    """Every grid ends below the best rate: no rung is left, and all of them are still shown."""
    fit = fit_learning_rate(grid(tmp_path / "t.csv", shift=1 / 16), FitConfig(bootstraps=0))
    assert isinstance(fit, NoLaw)
    assert "0 of 9" in fit.reasons[0] and "the best run has the largest lr of the grid" in fit.reasons[0]
    found = fit.to_json()
    json.dumps(found, allow_nan=False)
    assert [cell["lr_edge"] for cell in found["cells"]] == ["largest"] * 9


def test_one_batch_size_knows_the_rate_but_not_the_batch(tmp_path):
    source = grid(tmp_path / "t.csv", batches=1)
    fit = fit_learning_rate(source, FitConfig(bootstraps=0))
    assert fit.params == pytest.approx({"c": 1.79, "a": -0.713, "b": 0.307}, rel=1e-6)
    batch = fit_batch_size(source, FitConfig(bootstraps=0))
    assert isinstance(batch, NoLaw)
    assert "batch_tokens does not vary" in batch.reasons[0]


def test_cell_error_is_the_scatter_of_refits():
    """The delta-method error of a cell's optimum against its scatter over 300 noisy copies."""
    rng = np.random.default_rng(1)
    x = np.linspace(-1.2, 1.2, 9)
    found = [valley(x[:, None], 0.02 * x**2 + 0.0005 * rng.standard_normal(9)) for _ in range(300)]
    scatter = float(np.std([one.at[0] for one in found]))
    error = float(np.median([one.error(0, one.squares / one.freedom) for one in found]))
    assert error == pytest.approx(scatter, rel=0.15)


def test_a_rate_that_fits_every_rung_is_a_law_too(tmp_path):
    """The optimum is the same at every size and length, as under a parametrization that transfers."""
    rng = np.random.default_rng(6)
    rows = ["params_total,tokens,lr,loss"]
    for n in (1e5, 2e5, 4e5):
        for d in (1e6, 4e6, 1.6e7):
            for lr in 1e-3 * 2.0 ** np.arange(-2, 2.5, 0.5):
                loss = 3 * np.exp(0.02 * np.log(lr / 1e-3) ** 2 + 0.001 * rng.standard_normal())
                rows.append(f"{n},{d},{lr},{loss}")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    fit = fit_learning_rate(Source(path=tmp_path / "t.csv"), FitConfig(bootstraps=200))
    assert not isinstance(fit, NoLaw) and fit.status is FitStatus.identified
    assert all(low < 0 < high for low, high in (fit.intervals()["a"], fit.intervals()["b"]))
    low, high = fit.to_json([[8e5, 3.2e7]])["predictions"][0]["interval"]
    assert 0.8e-3 < low < 1e-3 < high < 1.25e-3


def test_an_edge_is_said_in_valid_json(tmp_path):
    """One cell with two rates: it is left out by name, the law stands on the other eight."""
    source = grid(tmp_path / "t.csv")
    header, *lines = source.path.read_text().splitlines()
    rates = sorted(
        {float(line.split(",")[2]) for line in lines if line.startswith("1000000000.0,2000000000.0")}
    )[:2]
    kept = [
        line
        for line in lines
        if not line.startswith("1000000000.0,2000000000.0") or float(line.split(",")[2]) in rates
    ]
    source.path.write_text("\n".join([header, *kept]))
    found = fit_learning_rate(source, FitConfig(bootstraps=20)).to_json()
    json.dumps(found, allow_nan=False)
    assert [cell["edge"] for cell in found["cells"]].count("") == 8
    assert found["dropped"][0]["names"] == ["rung 1e+09, 2e+09"]
    assert found["n"] == found["bootstrap"]["units"] == 8


def one_rung(lr: np.ndarray, loss: np.ndarray, batch: np.ndarray | None = None) -> Rung:
    n = len(lr)
    batches = np.full(n, 1e5) if batch is None else batch
    names = tuple(f"r{i}" for i in range(n))
    return rungs(Trials(names, np.full(n, 1e8), np.full(n, 1e9), lr, batches, loss))[0]


def test_few_rows_and_hills_have_no_optimum():
    lr = np.geomspace(1e-4, 1e-2, 5)
    few = one_rung(lr[:3], np.array([2.5, 2.4, 2.5]))
    assert "at least 4 are needed" in few.edge and few.edge_cost == 0
    hill = one_rung(lr, np.array([2.5, 2.49, 2.51, 2.51, 2.495]))
    assert hill.edge == "the loss has no minimum in the grid"
    assert hill.minimum is None and hill.excess is None


def test_the_figures_of_a_planted_parabola():
    """ln L = ln 2 + .02 (ln lr/lr*)^2: its curvature, its lowest loss, what its best run lacks."""
    lr = 1e-3 * 2.0 ** np.array([-1.5, -0.75, 0.2, 0.75, 1.5])
    rung = one_rung(lr, 2 * np.exp(0.02 * np.log(lr / 1e-3) ** 2))
    assert rung.lr is not None
    assert rung.lr.value == pytest.approx(1e-3)
    assert rung.lr.curvature == pytest.approx(0.04)
    assert rung.lr.twice_off == pytest.approx(0.02 * np.log(2) ** 2)
    assert rung.minimum == pytest.approx(2)
    assert rung.excess == pytest.approx(0.02 * (0.2 * np.log(2)) ** 2)
    assert rung.lr.edge is Edge.inside and rung.edge == "" and rung.edge_cost == 0


def test_what_an_edge_costs():
    """The grid ends one doubling below the optimum, which the parabola says: .02 ln(2)^2 is lost there."""
    lr = 1e-3 * 2.0 ** np.arange(-3, -0.75, 0.5)
    rung = one_rung(lr, 2 * np.exp(0.02 * np.log(lr / 1e-3) ** 2))
    assert rung.edge == "the best run has the largest lr of the grid"
    assert rung.edge_cost == pytest.approx(0.02 * np.log(2) ** 2)
    assert rung.lr is not None and rung.lr.edge is Edge.largest
    assert rung.lr.value == pytest.approx(1e-3) and rung.lr.interval == (None, None)


def test_a_line_down_to_the_edge_costs_its_last_step():
    lr = 1e-3 * 2.0 ** np.arange(5)
    rung = one_rung(lr, np.exp(-0.01 * np.log(lr)))
    assert rung.edge_cost == pytest.approx(0.01 * np.log(2))


def test_a_rate_that_diverged_is_an_end_that_was_seen():
    """The best finished run has the largest rate of those that finished, but the next one broke down."""
    lr = 1e-3 * 2.0 ** np.array([-1.5, -1, -0.5, 0, 1])
    loss = 2 * np.exp(0.02 * np.log(lr / 1e-3) ** 2)
    assert one_rung(lr[:-1], loss[:-1]).edge
    assert not one_rung(lr, np.array([*loss[:-1], np.inf])).edge


def test_intervals_cover_the_optimum_at_their_level():
    """Four rungs of seven noisy runs with the curvature of small models, 300 times: the 90 % interval of
    each covers the true rate in 90 % of the cases, open ends included."""
    rng = np.random.default_rng(2)
    offsets = np.log(2) * np.arange(-1.5, 1.75, 0.5)
    n = len(offsets)
    names = tuple(map(str, range(4 * n)))
    inside, cases = 0, 0
    for _ in range(300):
        truth = rng.uniform(-0.2, 0.2, 4)
        x = np.tile(offsets, 4)
        loss = np.exp(0.008 * (x - np.repeat(truth, n)) ** 2 + 0.001 * rng.standard_normal(4 * n))
        sizes = np.repeat(np.arange(1.0, 5.0), n)
        for rung, at in zip(
            rungs(Trials(names, sizes, np.ones(4 * n), np.exp(x), np.ones(4 * n), loss)), truth, strict=True
        ):
            assert rung.lr is not None
            low, high = rung.lr.interval
            inside += (low is None or np.log(low) <= at) and (high is None or at <= np.log(high))
            cases += 1
    assert 0.86 < inside / cases < 0.96


def test_a_flat_valley_has_an_open_interval():
    """Noise as large as the valley is deep: the curvature cannot be told from zero."""
    rng = np.random.default_rng(5)
    lr = np.geomspace(5e-4, 2e-3, 7)
    rung = one_rung(lr, np.exp(1e-5 * np.log(lr / 1e-3) ** 2 + 0.002 * rng.standard_normal(7)))
    assert rung.lr is None or rung.lr.interval == (None, None)


def test_both_settings_lie_where_they_were_planted():
    steps = np.array([(i, j) for i in range(-2, 3) for j in range(-1, 3)]) * np.log(2)
    x, y = steps.T - np.array([[0.3], [0.2]])
    loss = 3 * np.exp(0.01 * x**2 + 0.004 * y**2 - 0.006 * x * y)
    rung = one_rung(np.exp(steps[:, 0]), loss, np.exp(steps[:, 1]))
    assert rung.lr is not None and rung.batch_tokens is not None
    assert rung.lr.value == pytest.approx(np.exp(0.3))
    assert rung.batch_tokens.value == pytest.approx(np.exp(0.2))


def test_a_rate_tied_to_its_batch_is_told_from_neither():
    """The rate grows as the root of the batch in every run: any mixture of the two explains the loss."""
    steps = np.log(2) * np.arange(-4, 5)
    rung = one_rung(np.exp(steps / 2), np.exp(0.005 * steps**2), np.exp(steps))
    assert rung.edge == "lr and batch do not vary apart near the best run"
    assert rung.minimum is None


def test_seeds_count_as_one_setting_and_rounded_tokens_as_one_rung_and_one_cell(tmp_path):
    rows = ["params_total,tokens,lr,batch_tokens,loss,seed,status"]
    for seed in (0, 1):
        for i in range(-2, 3):
            loss = 2 * np.exp(0.02 * (i * 0.5) ** 2 + 0.001 * seed)
            rows.append(f"1e8,{1e9 * (1 + 0.004 * (i % 2))},{1e-3 * np.exp(0.5 * i)},1e5,{loss},{seed},done")
    rows.append("1e8,3e8,0.01,1e5,,0,diverged")
    (tmp_path / "t.csv").write_text("\n".join(rows))
    observations = observations_from_table(tmp_path / "t.csv")
    trials = trials_of(observations)
    assert trials is not None
    (rung,) = rungs(trials)
    assert rung.runs == 11 and not rung.edge
    assert rung.lr is not None and rung.lr.value == pytest.approx(1e-3)
    chosen = best_of_cell(observations)
    kept = trials_of(chosen)
    assert len(chosen) == 1 and kept is not None and len(kept.names) == 11


def test_rates_that_are_not_known_are_asked_for(tmp_path):
    (tmp_path / "t.csv").write_text("params_total,tokens,loss\n1e8,1e9,2.5\n")
    with pytest.raises(WrongInput, match=re.escape("columns={lr: ITS_NAME}")):
        fit_learning_rate(Source(path=tmp_path / "t.csv"), FitConfig(bootstraps=0))


def test_step_law_grid_of_mixtures_of_experts():
    """708 runs of 2503.04715's repository, N the active parameters: all 16 optima lie inside the grid. The
    batch grows with D as in the dense law (exponent .571); the rate grows with D but hardly falls with N, so
    the dense constants would be wrong here."""
    source = Source(path=public_table("steplaw_moe.csv"), columns={"params_non_embedding": "params_active"})
    settings = FitConfig(params=ParamsKind.non_embedding, bootstraps=200)
    lr, batch = fit_learning_rate(source, settings), fit_batch_size(source, settings)
    assert [cell["edge"] for cell in lr.to_json()["cells"]] == [""] * 16
    low, high = batch.intervals()["e"]
    assert low < 0.571 < high
    low, high = lr.intervals()["a"]
    assert -0.713 < low < 0 < high
    assert lr.intervals()["b"][0] > 0
