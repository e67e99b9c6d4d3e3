"""A parabola through a valley of losses: where it is lowest, and how surely."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from harness.laws.surfaces import Floats


@dataclass(frozen=True, eq=False)
class Valley:
    """Least squares y = c + g'z + z'Hz/2 with z = x - centre, q axes (one or two).

    `unscaled` [p, p] times the variance of y is the covariance of the coefficients c, g, and H by its
    upper triangle; `squares` is the residual sum of squares on `freedom` degrees. `determined` is false where
    the x do not tell the coefficients apart.
    """

    centre: Floats
    coefficients: Floats
    unscaled: Floats
    squares: float
    rows: int
    determined: bool

    @property
    def axes(self) -> int:
        return len(self.centre)

    @property
    def freedom(self) -> int:
        return self.rows - len(self.coefficients)

    @property
    def gradient(self) -> Floats:
        return self.coefficients[1 : 1 + self.axes]

    @property
    def hessian(self) -> Floats:
        """[q, q]."""
        found = np.zeros((self.axes, self.axes))
        pairs = np.triu_indices(self.axes)
        found[pairs] = found.T[pairs] = self.coefficients[1 + self.axes :]
        return found

    @property
    def convex(self) -> bool:
        return bool(np.linalg.eigvalsh(self.hessian).min() > 0)

    @property
    def at(self) -> Floats:
        """The lowest point [q]; a saddle or a hilltop unless `convex`."""
        return self.centre - np.linalg.solve(self.hessian, self.gradient)

    @property
    def lowest(self) -> float:
        """y there."""
        return float(self.coefficients[0] + 0.5 * self.gradient @ (self.at - self.centre))

    def rise(self, x: Floats) -> float:
        """How far y at `x` [q] lies above the lowest point."""
        off = x - self.at
        return float(off @ self.hessian @ off / 2)

    def ratio(self, axis: int) -> tuple[float, float, Floats]:
        """P and Q with at[axis] = centre[axis] - P / Q, and their derivatives [2, p] by the coefficients:
        P is that row of adj(H) g, Q is det H."""
        g = self.gradient
        if self.axes == 1:
            return float(g[0]), float(self.hessian[0, 0]), np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
        (a, b), (_, c) = self.hessian
        by_q = [0.0, 0.0, 0.0, c, -2 * b, a]
        if axis == 0:
            return c * g[0] - b * g[1], a * c - b * b, np.array([[0.0, c, -b, 0.0, -g[1], g[0]], by_q])
        return a * g[1] - b * g[0], a * c - b * b, np.array([[0.0, -b, a, g[1], -g[0], 0.0], by_q])

    def error(self, axis: int, variance: float) -> float:
        """Standard error of at[axis] by the delta method, for the variance of y."""
        p, q, slopes = self.ratio(axis)
        by_ratio = np.array([-1 / q, p / q**2]) @ slopes
        return math.sqrt(max(variance * float(by_ratio @ self.unscaled @ by_ratio), 0.0))

    def interval(self, axis: int, variance: float, freedom: int, level: float) -> tuple[float, float]:
        """Of at[axis], by Fieller's theorem (1954): every x at which P + Q (x - centre) cannot be told from
        zero. Infinite where Q, the curvature, cannot be told from zero itself."""
        from scipy.special import stdtrit

        p, q, slopes = self.ratio(axis)
        t = float(stdtrit(freedom, 0.5 + level / 2)) if freedom else math.inf
        if not math.isfinite(t * variance):
            return -math.inf, math.inf
        (pp, pq), (_, qq) = t * t * variance * slopes @ self.unscaled @ slopes.T
        a, b, c = q * q - qq, p * q - pq, p * p - pp
        if a <= 0:
            return -math.inf, math.inf
        root = math.sqrt(max(b * b - a * c, 0.0))
        return float(self.centre[axis] + (-b - root) / a), float(self.centre[axis] + (-b + root) / a)


def valley(x: Floats, y: Floats) -> Valley:
    """Fit y [n] over x [n, q]; n is at least the number of coefficients, 1 + q + q (q + 1) / 2."""
    centre = x.mean(axis=0)
    z = x - centre
    q = z.shape[1]
    squares = ((0.5 if i == j else 1.0) * z[:, i] * z[:, j] for i in range(q) for j in range(i, q))
    design = np.column_stack([np.ones(len(z)), *z.T, *squares])
    solved, _, rank, _ = np.linalg.lstsq(design, y, rcond=None)
    squared = float(((design @ solved - y) ** 2).sum())
    unscaled = np.linalg.pinv(design.T @ design)
    return Valley(centre, solved, unscaled, squared, len(y), bool(rank == design.shape[1]))
