"""Many shapes of the multi-power law at once: the loss falls with the sum of the learning rate, and falls
again, with a delay, when the rate does.

L = L0 + a S^-alpha + b sum_k gap_k [1 - (1 + eta_k^-gamma S_k / delay)^-beta], Luo et al. 2503.12811, with
the rate in units of its peak, so S and `delay` count steps at the peak and b is the fall, in nats, that a
full decay is worth. alpha, delay, beta and gamma are hardly identified by one sweep; what they leave open
is drawn, not fitted.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np

from harness.forecast.inflight.trajectory import Positions, Schedule
from harness.laws.surfaces import Floats

SHAPES = 256

ALPHA, DELAY, BETA, GAMMA = (0.2, 1.2), (3.0, 3000.0), (0.3, 3.0), (0.0, 1.5)
"""The box that shapes are drawn from; delay and beta evenly in their logarithms. The published fits of
2503.12811 (alpha .43 to .51, beta .6, gamma .64, delay about 9 steps) lie well inside."""

SMALLEST_RATE = 1e-3
"""Of the peak: a rate of exactly zero has no power -gamma."""


@dataclass(frozen=True)
class Shapes:
    """Each [k]."""

    alpha: Floats
    delay: Floats
    beta: Floats
    gamma: Floats

    def take(self, at: Positions) -> Shapes:
        return Shapes(self.alpha[at], self.delay[at], self.beta[at], self.gamma[at])


@cache
def drawn() -> Shapes:
    """The same Latin hypercube every time."""
    rng = np.random.default_rng(0)
    u = (np.stack([rng.permutation(SHAPES) for _ in range(4)]) + 0.5) / SHAPES
    even = [low + (high - low) * part for (low, high), part in zip((ALPHA, GAMMA), u[:2], strict=True)]
    logs = [low * (high / low) ** part for (low, high), part in zip((DELAY, BETA), u[2:], strict=True)]
    return Shapes(alpha=even[0], delay=logs[0], beta=logs[1], gamma=even[1])


def basis(shapes: Shapes, schedule: Schedule, steps: Floats) -> tuple[Floats, Floats]:
    """What a and b multiply, less their values at the last of `steps`: each [k, n]."""
    area, areas = schedule.area(steps), schedule.areas
    gap = np.diff(schedule.rate)
    moved = np.flatnonzero(gap)
    rate = np.maximum(schedule.rate[1:][moved], SMALLEST_RATE)
    since = np.maximum(area[:, None] - (areas[1:] + areas[:-1])[moved] / 2, 0.0)  # [n, m]
    speed = rate ** -shapes.gamma[:, None] / shapes.delay[:, None]  # [k, m]
    left = np.exp(-shapes.beta[:, None, None] * np.log1p(since * speed[:, None, :]))
    fall = (1 - left) @ gap[moved]
    power = area ** -shapes.alpha[:, None]
    return power - power[:, -1:], fall - fall[:, -1:]
