"""The reward sigmoid: later compute from the first part of planted noisy runs, and refusals."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from harness.errors import CannotAnswer
from harness.laws.config import FitConfig, LawConfig, LawName, Resampling
from harness.laws.fit import FitStatus
from harness.laws.responses.reward import fit_reward
from harness.laws.responses.source import Source


def true_reward(compute: np.ndarray | float) -> np.ndarray:
    return 0.2 + 0.41 / (1 + (3000 / np.asarray(compute)) ** 1.97)


def run(path: Path, compute: np.ndarray, reward: np.ndarray) -> Source:
    rows = [f"{c!r},{r!r}" for c, r in zip(compute.tolist(), reward.tolist(), strict=True)]
    path.write_text("\n".join(["compute,reward", *rows]))
    return Source(path=path)


def config(skip: float = 0.0, **others: object) -> FitConfig:
    return FitConfig(law=LawConfig(name=LawName.reward, skip=skip), **others)


def test_eight_thousand_hours_predict_sixteen_thousand(tmp_path):
    """Noise-free, the start left out and its reward held: the planted constants come back."""
    compute = np.concatenate([[1e-3], np.linspace(200, 8000, 40)])
    fit = fit_reward(run(tmp_path / "t.csv", compute, true_reward(compute)), config(1500, bootstraps=0))
    assert fit.status is FitStatus.identified
    assert fit.params == pytest.approx({"R0": 0.2, "A": 0.61, "C_mid": 3000, "B": 1.97}, rel=1e-5)
    assert fit.predictions([[16_000]])[0]["reward"] == pytest.approx(float(true_reward(16_000)), rel=1e-6)
    found = fit.to_json()
    assert found["conventions"]["R0"] == "the first reward, held"
    assert [(item["reason"], item["count"]) for item in found["dropped"]] == [("compute < 1500", 8)]


@pytest.mark.parametrize("resampling", [Resampling.cases, Resampling.residuals])
def test_interval_covers_at_its_level(tmp_path, resampling):
    """90 % intervals at twice the compute, noise .01, against the law itself. Over 100 seeds 91 (cases) and
    87 (residuals) were inside; here all but one to six of 30."""
    compute, inside = np.linspace(200, 8000, 40), 0
    for seed in range(30):
        noise = 0.01 * np.random.default_rng(seed).standard_normal(40)
        source = run(tmp_path / "t.csv", compute, true_reward(compute) + noise)
        fit = fit_reward(source, config(bootstraps=60, resampling=resampling, seed=seed))
        low, high = fit.predictions([[16_000]])[0]["interval"]
        inside += low <= true_reward(16_000) <= high
    assert 24 <= inside < 30


def test_a_run_before_its_bend_is_refused(tmp_path):
    """Up to a third of C_mid the rows are a power law: any plateau fits."""
    compute = np.linspace(50, 1000, 40)
    reward = true_reward(compute) + 0.002 * np.random.default_rng(0).standard_normal(40)
    fit = fit_reward(run(tmp_path / "t.csv", compute, reward), config(bootstraps=0))
    assert fit.status is FitStatus.not_identified
    assert "beyond the largest compute 1e+03" in fit.reasons[-1] or "not seen" in fit.reasons[-1]


def test_flat_reward_is_refused(tmp_path):
    compute = np.linspace(100, 8000, 40)
    reward = 0.3 + 0.01 * np.random.default_rng(0).standard_normal(40)
    fit = fit_reward(run(tmp_path / "t.csv", compute, reward), config(bootstraps=0))
    assert fit.status is FitStatus.not_identified


def test_a_reward_may_be_negative_or_zero(tmp_path):
    """Rewards have no natural zero: shifted ones have the same curve, and none is left out."""
    compute = np.linspace(100, 8000, 40)
    reward = true_reward(compute) + 0.005 * np.random.default_rng(0).standard_normal(40)
    usual = fit_reward(run(tmp_path / "t.csv", compute, reward), config(bootstraps=50))
    lowered = fit_reward(run(tmp_path / "u.csv", compute, reward - reward[3]), config(bootstraps=50))
    assert lowered.status is FitStatus.identified and lowered.steps[0].n == 40
    shift = {"R0": reward[3], "A": reward[3], "C_mid": 0.0, "B": 0.0}
    assert {name: value + shift[name] for name, value in lowered.params.items()} == pytest.approx(
        usual.params, rel=1e-5
    )
    (there,), (here,) = (fit.predictions([[16_000]]) for fit in (usual, lowered))
    assert np.array(here["interval"]) + reward[3] == pytest.approx(there["interval"], abs=1e-5)


def test_bad_rows(tmp_path):
    compute = np.linspace(100, 8000, 10)
    reward = true_reward(compute)
    with pytest.raises(CannotAnswer, match="cannot determine the 4 free parameters"):
        fit_reward(run(tmp_path / "t.csv", compute[3:7], reward[3:7]), config(bootstraps=0))
