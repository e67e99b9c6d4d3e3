"""Optimal learning rates and batch sizes: planted grids, edges, and a public grid of mixtures of experts."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from harness.errors import CannotAnswer
from harness.laws.config import FitConfig, ParamsKind
from harness.laws.fit import FitStatus
from harness.laws.responses.optima import cell_optimum, fit_batch_size, fit_learning_rate, valley
from harness.laws.responses.source import Source
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
    assert capsys.readouterr().out.count("inside") == 9


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
    """Every grid ends below the best rate: no cell is left."""
    with pytest.raises(CannotAnswer, match=r"0 of 9 .* the best run has the largest lr of the grid"):
        fit_learning_rate(grid(tmp_path / "t.csv", shift=1 / 16), FitConfig(bootstraps=0))


def test_one_batch_size_knows_the_rate_but_not_the_batch(tmp_path):
    source = grid(tmp_path / "t.csv", batches=1)
    fit = fit_learning_rate(source, FitConfig(bootstraps=0))
    assert fit.params == pytest.approx({"c": 1.79, "a": -0.713, "b": 0.307}, rel=1e-6)
    with pytest.raises(CannotAnswer, match="batch_tokens does not vary"):
        fit_batch_size(source, FitConfig(bootstraps=0))


def test_cell_error_is_the_scatter_of_refits():
    """The delta-method error of a cell's optimum against its scatter over 300 noisy copies."""
    rng = np.random.default_rng(1)
    x = np.linspace(-1.2, 1.2, 9)
    found = [valley(x[:, None], 0.02 * x**2 + 0.0005 * rng.standard_normal(9)) for _ in range(300)]
    scatter = float(np.std([one.at[0] for one in found]))
    error = float(np.median([np.sqrt(one.covariance[0, 0]) for one in found]))
    assert error == pytest.approx(scatter, rel=0.15)


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
    assert found["dropped"][0]["names"] == ["cell 1e+09, 2e+09"]
    assert found["n"] == found["bootstrap"]["units"] == 8


def test_few_rows_and_hills_have_no_optimum():
    lr, batch = np.geomspace(1e-4, 1e-2, 5), np.full(5, 1e5)
    assert (
        "at least 4 are needed" in cell_optimum(lr[:3], batch[:3], np.array([2.5, 2.4, 2.5]), 1e8, 1e9).edge
    )
    hill = np.array([2.5, 2.49, 2.51, 2.51, 2.495])
    assert cell_optimum(lr, batch, hill, 1e8, 1e9).edge == "the loss has no minimum in the grid"


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
