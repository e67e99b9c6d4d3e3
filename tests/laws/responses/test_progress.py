"""Historic progress fitted to a planted history of models."""

from __future__ import annotations

import numpy as np
import pytest

from harness.laws.config import FitConfig
from harness.laws.fit import FitStatus
from harness.laws.forms.form import predict
from harness.laws.forms.progress import PROGRESS, doubling_months
from harness.laws.responses.progress import fit_progress
from harness.laws.responses.source import Source

PLANTED = {
    "A": 2.0,
    "B": 40.0,
    "alpha_param": 0.07,
    "beta_data": 0.15,
    "alpha_year": 0.01,
    "beta_year": 0.06,
}


def history(path, noise: float) -> Source:
    """60 models of 2012 to 2024, larger every year but for a spread of two orders of magnitude."""
    rng = np.random.default_rng(2)
    year = rng.uniform(2012, 2024, 60)
    n = 10 ** (6 + 0.3 * (year - 2012) + rng.uniform(0, 2, 60))
    d = 10 ** (7 + 0.3 * (year - 2012) + rng.uniform(0, 2, 60))
    loss = predict(PROGRESS, PLANTED, {"params": n, "tokens": d, "year": year})
    loss = loss * np.exp(noise * rng.standard_normal(60))
    rows = [
        f"m{i},{a!r},{b!r},{t!r},{y!r}"
        for i, (a, b, t, y) in enumerate(
            zip(n.tolist(), d.tolist(), year.tolist(), loss.tolist(), strict=True)
        )
    ]
    path.write_text("\n".join(["run_id,params_total,tokens,year,loss", *rows]))
    return Source(path=path)


def test_planted_history_is_found_again(tmp_path):
    fit = fit_progress(history(tmp_path / "t.csv", 0.0), FitConfig(bootstraps=0))
    assert fit.status is FitStatus.identified, fit.reasons
    assert fit.params == pytest.approx(PLANTED, rel=1e-4)


def test_doubling_time_with_its_interval(tmp_path):
    found = fit_progress(history(tmp_path / "t.csv", 0.005), FitConfig(bootstraps=60)).to_json(
        [[1e11, 1e12, 2025.5]]
    )
    low, high = found["doubling_months"]["interval"]
    assert low < doubling_months(PLANTED) < high
    assert high < 3 * low
    (point,) = found["predictions"]
    at = {"params": 1e11, "tokens": 1e12, "year": 2025.5}
    assert point["interval"][0] < predict(PROGRESS, PLANTED, at)[0] < point["interval"][1]
