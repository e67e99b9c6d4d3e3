"""Where the public run tables lie, and small planted sweeps whose law is known."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from harness.laws.collect import collect
from harness.laws.config import LossUnit, ParamsKind
from harness.laws.observations import FLOPS_6ND, Observations, Row

ROOT = Path(__file__).resolve().parents[1]


def public_table(name: str) -> Path:
    """A table of ../shared/data or $HARNESS_PUBLIC_DATA. Skips where it is missing; under CI it fails."""
    folder = Path(os.environ.get("HARNESS_PUBLIC_DATA", ROOT.parent / "shared" / "data"))
    path = folder / name
    if path.exists():
        return path
    reason = f"the public run tables are not at {folder}; set HARNESS_PUBLIC_DATA"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


def planted_sweep(
    seed: int,
    noise: float,
    sizes: int = 5,
    horizons: int = 4,
    law: tuple[float, float, float, float, float] = (60.0, 300.0, 1.6, 0.35, 0.36),
    kink: float = 0.0,
) -> Observations:
    """A grid over 10x in N and 30x in D of (A, B, E, alpha, beta) with multiplicative normal noise.

    `kink` lowers the loss by that share across a phase change in the middle of the token counts.
    """
    rng = np.random.default_rng(seed)
    n, d = (
        x.ravel() for x in np.meshgrid(2e4 * np.geomspace(1, 10, sizes), 5e6 * np.geomspace(1, 30, horizons))
    )
    a, b, e, alpha, beta = law
    loss = e + a / n**alpha + b / d**beta
    loss = loss * (1 - kink / (1 + np.exp(-(np.log(d / 2.5e7) + 0.4 * np.log(n / 6e4)) / 0.3)))
    loss = loss * np.exp(noise * rng.standard_normal(len(n)))
    rows = [
        Row(name=f"run{i}", params=n[i], tokens=d[i], flops=None, loss=loss[i], seed="0")
        for i in rng.permutation(len(n))
    ]
    return collect(rows, ParamsKind.total, LossUnit.nats_per_token, FLOPS_6ND)
