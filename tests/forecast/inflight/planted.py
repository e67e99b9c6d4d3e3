"""Curves whose end is known: the multi-power law under a schedule, and saturating rewards."""

from __future__ import annotations

import numpy as np

from harness.forecast.inflight.shapes import Shapes, basis
from harness.forecast.inflight.trajectory import Schedule, Trajectory


def wsd(steps: int, cooldown: float = 0.3) -> Schedule:
    at = np.arange(steps + 1.0)
    left = np.minimum(1.0, (steps - at) / (cooldown * steps)) if cooldown else 1.0
    return Schedule.of(at, np.minimum(1.0, (at + 1) / (0.02 * steps)) * left)


def constant(steps: int) -> Schedule:
    return wsd(steps, cooldown=0.0)


def loss_run(
    name: str, size: float, schedule: Schedule, seed: int, noise: float = 0.01, worse: float = 0.0
) -> Trajectory:
    """L = 2 + 8 / N^.1 + amplitudes that grow as N^.1, from a law of the family, with white noise."""
    rng = np.random.default_rng(seed)
    end = float(schedule.steps[-1])
    steps = np.unique(np.linspace(end / 200, end, 200).round())
    truth = Shapes(*(np.array([value]) for value in (0.45, 30.0, 0.7, 0.6)))
    power, fall = basis(truth, schedule, steps)
    grown = (size / 1e7) ** 0.1
    area = schedule.area(steps[-1:])
    level = 2 + worse + 8 / size**0.1 + 20 * grown * float(area[0]) ** -0.45
    loss = level + 20 * grown * power[0] + 0.2 * grown * fall[0]
    return Trajectory(
        run_id=name,
        steps=steps,
        values=loss + noise * rng.standard_normal(len(steps)),
        end=end,
        budget=size * end,
        params=size,
        schedule=schedule,
        final=level,
        cell=f"{size}/{end}",
    )


def reward_run(
    name: str, seed: int, rows: int = 400, late: bool = False, collapses: float | None = None
) -> Trajectory:
    """A rate in [0, 1] on a sigmoid in progress, with the binomial noise of 128 prompts a row and an
    autoregressive wander. `late`: it stays where it begins for long, then rises steeply. From the share
    `collapses` on it falls back to where it began."""
    rng = np.random.default_rng(seed)
    start, plateau = rng.uniform(0.02, 0.25), rng.uniform(0.4, 0.9)
    middle, steep = np.exp(rng.uniform(np.log(0.02), np.log(0.4))), rng.uniform(1.0, 3.0)
    if late:
        middle, steep = rng.uniform(0.3, 0.8), rng.uniform(3.0, 6.0)
    x = np.arange(1, rows + 1) / rows
    mean = start + (plateau - start) / (1 + (middle / x) ** steep)
    if collapses is not None:
        mean = start + (mean - start) * np.exp(-np.maximum(x - collapses, 0.0) / 0.05)
    wander = np.zeros(rows)
    for at in range(1, rows):
        wander[at] = 0.9 * wander[at - 1] + 0.004 * rng.standard_normal()
    chance = np.clip(mean + wander, 0.001, 0.999)
    values = rng.binomial(128, chance) / 128
    return Trajectory(
        run_id=name,
        steps=np.arange(1.0, rows + 1),
        values=values,
        end=float(rows),
        budget=float(rows),
        final=float(values[-rows // 20 :].mean()),
    )
