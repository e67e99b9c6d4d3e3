"""The end of a curve, given its beginning, when everything unknown is normal.

value = level + mean + sum_j x_j basis_j + w + noise: x_j has mean 0 and a standard deviation of its own, the
level is free, and w, what no law describes, is a random walk in the logarithm of progress.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from harness.laws.surfaces import Floats

FREE = 30.0
"""Standard deviation of the level, in units of the curve's fall."""


def wander(progress: Floats, deviation: float, slowing: float = 0.0) -> Floats:
    """Covariance [n, n] of the walk: over one e-fold its standard deviation is `deviation` at the last of
    `progress` [n], and (progress / last)^-slowing times that before."""
    done = progress / progress[-1]
    gone = np.log(done) if slowing == 0 else -(done ** (-2 * slowing)) / (2 * slowing)
    gone = gone - gone[0]
    return deviation**2 * np.minimum(gone[:, None], gone)


def end_given(
    values: Floats,
    mean: Floats,
    bases: Sequence[tuple[Floats, Floats]],
    walk: Floats,
    noise: float,
    scale: float,
) -> tuple[Floats, Floats]:
    """Mean and variance [k] of the last point without its noise.

    `values` [n] are the first points, `mean` [k, n + 1] and each basis with its standard deviation [k] cover
    the last as well, and so does the covariance `walk` [n + 1, n + 1].
    """
    n = len(values)
    covariance = walk + (FREE * scale) ** 2 + np.zeros((len(mean), 1, 1))
    for basis, deviation in bases:
        spread = basis * deviation[:, None]
        covariance = covariance + spread[:, :, None] * spread[:, None, :]
    seen = covariance[:, :n, :n] + noise**2 * np.eye(n)
    across = covariance[:, :n, n]
    gain = np.linalg.solve(seen, across[:, :, None])[:, :, 0]
    end = mean[:, n] + (gain * (values - mean[:, :n])).sum(axis=1)
    variance = covariance[:, n, n] - (gain * across).sum(axis=1)
    return end, np.maximum(variance, 0.0)
