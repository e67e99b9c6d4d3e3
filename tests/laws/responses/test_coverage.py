"""pass@k without bias, the coverage law, and what it refuses."""

from __future__ import annotations

from itertools import combinations
from math import comb
from pathlib import Path

import numpy as np
import pytest

from harness.errors import CannotAnswer, WrongInput
from harness.laws.config import FitConfig
from harness.laws.fit import FitStatus
from harness.laws.responses.coverage import fit_coverage, pass_at_k
from harness.laws.responses.source import Source


def test_published_value():
    assert pass_at_k(10, 3, 5) == pytest.approx(0.916667, abs=5e-7)


@pytest.mark.parametrize("n, c, k", [(10, 3, 5), (12, 1, 12), (9, 8, 1), (30, 7, 4), (6, 6, 2), (5, 0, 2)])
def test_estimator_is_the_share_of_subsets(n, c, k):
    subsets = list(combinations(range(n), k)) if n <= 12 else None
    if subsets is not None:
        assert pass_at_k(n, c, k) == pytest.approx(np.mean([min(s) < c for s in subsets]), abs=1e-12)
    assert pass_at_k(n, c, k) == pytest.approx(1 - comb(n - c, k) / comb(n, k), abs=1e-12)


def test_many_attempts_neither_overflow_nor_lose_digits():
    """One right in a thousand million: k/n exactly, where 1 - C/C would be left with few digits."""
    assert pass_at_k(10**9, 1, 3) == pytest.approx(3e-9, rel=1e-12)
    assert pass_at_k(10**6, 10, 10**5) == pytest.approx(1 - 0.9**10, rel=1e-5)


@pytest.mark.parametrize("n, c, k", [(10, 11, 1), (10, -1, 1), (10, 3, 11), (10, 3, 0)])
def test_impossible_counts(n, c, k):
    with pytest.raises(WrongInput, match="must not exceed attempts"):
        pass_at_k(n, c, k)


def curve(path: Path, samples: list[float], coverage: list[float]) -> Source:
    rows = [f"{k},{c}" for k, c in zip(samples, coverage, strict=True)]
    path.write_text("\n".join(["samples,coverage", *rows]))
    return Source(path=path)


def counts(path: Path, attempts: int, correct: np.ndarray, named: bool = True) -> Source:
    rows = [f"{f'p{i},' if named else ''}{attempts},{c}" for i, c in enumerate(correct)]
    path.write_text("\n".join([f"{'run_id,' if named else ''}attempts,correct", *rows]))
    return Source(path=path)


def test_planted_curve_is_found_again(tmp_path):
    k = 2.0 ** np.arange(11)
    fit = fit_coverage(
        curve(tmp_path / "t.csv", k.tolist(), np.exp(-1.8 * k**-0.35).tolist()), FitConfig(bootstraps=0)
    )
    assert fit.params == pytest.approx({"a": -1.8, "b": -0.35}, rel=1e-9)
    (point,) = fit.predictions([[10_000]])
    assert point["coverage"] == pytest.approx(np.exp(-1.8 * 10_000**-0.35), rel=1e-9)
    assert any("share their samples" in note for note in fit.notes)
    assert any("without a verifier" in note for note in fit.notes)


def difficulties(seed: int, problems: int) -> np.ndarray:
    return np.random.default_rng(seed).beta(0.3, 2.5, size=problems)


def test_intervals_from_counts_cover_other_problems_of_the_kind(tmp_path):
    """90 % intervals of coverage at 64 samples from 80 problems, against the kind's true coverage; the
    binomial chance of fewer than 19 of 25 inside is under 1 %."""
    true = float(np.mean(1 - (1 - difficulties(999, 200_000)) ** 64))
    inside = 0
    for seed in range(25):
        correct = np.random.default_rng(seed).binomial(256, difficulties(seed, 80))
        source = counts(tmp_path / "t.csv", 256, correct)
        fit = fit_coverage(source, FitConfig(bootstraps=100, seed=seed))
        low, high = fit.predictions([[64]])[0]["interval"]
        inside += low <= true <= high
    assert inside >= 19


def test_coverage_from_counts_is_the_mean_of_pass_at_k(tmp_path):
    correct = np.array([0, 1, 3, 8])
    fit = fit_coverage(counts(tmp_path / "t.csv", 16, correct), FitConfig(bootstraps=0))
    found = {row["samples"]: row["coverage"] for row in fit.to_json()["coverage"]}
    assert sorted(found) == [1, 2, 4, 8, 16]
    assert found[4] == pytest.approx(np.mean([pass_at_k(16, int(c), 4) for c in correct]))
    assert found[16] == pytest.approx(0.75)


def test_problems_with_equal_counts_all_count(tmp_path):
    correct = np.array([0, 1, 1, 8])
    named, bare = (
        fit_coverage(counts(tmp_path / "t.csv", 16, correct, named), FitConfig(bootstraps=0))
        for named in (True, False)
    )
    assert named.params == bare.params


def test_refusals(tmp_path):
    path, fast = tmp_path / "t.csv", FitConfig(bootstraps=0)
    with pytest.raises(CannotAnswer, match="samples must be a whole number"):
        fit_coverage(curve(path, [1, 2.5, 4], [0.1, 0.2, 0.3]), fast)
    with pytest.raises(CannotAnswer, match="coverage must lie between 0 and 1"):
        fit_coverage(curve(path, [1, 2, 4], [10, 20, 30]), fast)
    with pytest.raises(CannotAnswer, match="2 usable rows cannot determine the 2 free parameters"):
        fit_coverage(curve(path, [1, 2], [0.1, 0.2]), fast)
    with pytest.raises(CannotAnswer, match="no problem was solved once"):
        fit_coverage(counts(path, 8, np.zeros(3, dtype=int)), fast)
    with pytest.raises(CannotAnswer, match="more correct samples than attempts"):
        fit_coverage(counts(path, 8, np.array([1, 9])), fast)


def test_scattered_coverage_is_not_identified(tmp_path):
    fit = fit_coverage(
        curve(tmp_path / "t.csv", [1, 2, 4, 8, 16, 32], [0.3, 0.5, 0.2, 0.45, 0.25, 0.4]),
        FitConfig(bootstraps=0),
    )
    assert fit.status is FitStatus.not_identified
    assert "of the variance of these rows" in fit.reasons[0]


def test_a_coverage_that_never_moves_shows_no_law(tmp_path):
    """Any b passes through it, and noise-free the Jacobian alone does not say so."""
    fit = fit_coverage(curve(tmp_path / "t.csv", [1, 2, 4, 8, 16], [1.0] * 5), FitConfig(bootstraps=0))
    assert fit.status is FitStatus.not_identified
    assert "explains 0% of the variance" in fit.reasons[0]
