"""The best learning rate and batch size of every rung of a sweep, and what its grid leaves open.

A rung is one (params, tokens). Per rung a parabola of ln loss in ln lr, in ln batch, or in both together
goes through the runs near the best one; its minimum is the rung's optimum.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from harness.laws.bootstrap import finite
from harness.laws.forms.form import RowNumbers
from harness.laws.responses.trials import Trials, by_rung
from harness.laws.responses.valley import Valley, valley
from harness.laws.surfaces import Floats

NEAR = 0.02
"""Settings within this share of the rung's best loss shape its parabola. Further away the valley is steeper
on the side of large rates, where training breaks down; nearer, seeds that move the loss by .3 % leave the
curvature of seven rates open."""


class Edge(Enum):
    """The end of the grid at which the optimum lies."""

    inside = "inside"
    smallest = "smallest"
    largest = "largest"


Ends = tuple[float | None, float | None]
OPEN: Ends = (None, None)


@dataclass(frozen=True)
class Tuned:
    """The optimum of one setting, in natural units, with the standard error of its logarithm.

    An end of `interval` is None where the grid does not reach it or the curvature cannot be told from zero.
    `curvature` is d2 ln L / d(ln setting)2, None without a parabola.
    """

    value: float
    error: float
    interval: Ends
    curvature: float | None
    edge: Edge

    @property
    def twice_off(self) -> float | None:
        """What a setting off by a factor of two costs, in ln L."""
        return None if self.curvature is None else self.curvature * math.log(2) ** 2 / 2


@dataclass(frozen=True, eq=False)
class Rung:
    """One rung. `batch_tokens` is None where the batch does not vary, `lr` where the rate does not.

    `rows` are the runs under the parabola, `runs` all of them, `minimum` the loss at its lowest point and
    `excess` how far the best setting lies above that, in ln L. `edge` says why the optimum cannot be
    trusted, empty for one inside the grid, and `edge_cost` how far the best setting then may lie above the
    lowest loss, in ln L.
    """

    params: float
    tokens: float
    trials: Trials
    rows: int
    lr: Tuned | None
    batch_tokens: Tuned | None
    minimum: float | None
    excess: float | None
    edge: str
    edge_cost: float

    @property
    def runs(self) -> int:
        return len(self.trials.names)

    @property
    def best(self) -> int:
        """The run with the lowest loss."""
        return int(np.argmin(self.trials.loss))

    def to_json(self) -> dict[str, Any]:
        best, trials = self.best, self.trials
        runs = zip(trials.names, trials.lr, trials.batch_tokens, trials.loss, strict=True)
        return {
            "params": self.params,
            "tokens": self.tokens,
            **setting_json("lr", "lr", self.lr, trials.lr[best]),
            **setting_json("batch_tokens", "batch", self.batch_tokens, trials.batch_tokens[best]),
            "runs": self.runs,
            "rows": self.rows,
            "loss": self.minimum,
            "best_run": trials.names[best],
            "best_lr": float(trials.lr[best]),
            "best_batch_tokens": finite(float(trials.batch_tokens[best])),
            "best_loss": float(trials.loss[best]),
            "loss_excess": self.excess,
            "edge": self.edge,
            "edge_cost": self.edge_cost,
            "trials": [
                {"run_id": name, "lr": float(lr), "batch_tokens": finite(float(b)), "loss": finite(float(x))}
                for name, lr, b, x in runs
            ],
        }


def setting_json(name: str, short: str, tuned: Tuned | None, only: float) -> dict[str, Any]:
    """`only` is the value where the setting does not vary."""
    if tuned is None:
        return {name: finite(float(only)), f"{short}_error": 0.0, f"{short}_varies": False}
    return {
        name: tuned.value,
        f"{short}_error": finite(tuned.error),
        f"{short}_varies": True,
        f"{short}_interval": list(tuned.interval),
        f"{short}_curvature": tuned.curvature,
        f"{short}_twice_off": tuned.twice_off,
        f"{short}_edge": tuned.edge.value,
    }


@dataclass(frozen=True, eq=False)
class Settings:
    """What was tried at one rung: ln settings [m, q] of the axes that vary, and the mean ln loss [m]."""

    names: tuple[str, ...]
    points: Floats
    loss: Floats
    of_run: RowNumbers  # [n], the setting of each run

    @property
    def best(self) -> int:
        return int(np.argmin(self.loss))


def settings_of(trials: Trials) -> Settings:
    columns = {"lr": trials.lr, "batch": trials.batch_tokens}
    varying = {name: np.log(column) for name, column in columns.items() if len(np.unique(column)) > 1}
    stacked = np.column_stack([*varying.values()]) if varying else np.zeros((len(trials.names), 0))
    points, of_run = np.unique(stacked, axis=0, return_inverse=True)
    of_run = of_run.reshape(-1)
    logs = np.log(trials.loss)
    means = np.array([logs[of_run == at].mean() for at in range(len(points))])
    return Settings(tuple(varying), points, means, of_run)


def near_rows(trials: Trials, settings: Settings, needed: int) -> Any:
    """Which runs [n] shape the parabola: those of settings near the best, or else the `needed` best ones."""
    of_run = settings.loss[settings.of_run]
    kept = np.isfinite(trials.loss)
    near = kept & (of_run <= settings.loss[settings.best] + math.log1p(NEAR))
    if near.sum() >= needed or kept.sum() < needed:
        return near
    return kept & (of_run <= np.sort(of_run[kept])[needed - 1])


def rungs(trials: Trials, level: float = 0.9) -> list[Rung]:
    """Every rung, with intervals from the scatter around all parabolas. The scatter in ln L is pooled over
    rungs: each has few runs to spare. A rung where no setting was without a diverged run is left out."""
    tried = ((rows, settings_of(rows)) for rows in by_rung(trials))
    groups = [(rows, settings) for rows, settings in tried if np.isfinite(settings.loss).any()]
    fits = [rung_valley(rows, settings) for rows, settings in groups]
    found = [fit for fit in fits if fit is not None]
    freedom = sum(fit.freedom for fit in found)
    variance = sum(fit.squares for fit in found) / freedom if freedom else math.nan
    return [
        describe(rows, settings, fit, (variance, freedom, level))
        for (rows, settings), fit in zip(groups, fits, strict=True)
    ]


def rung_valley(trials: Trials, settings: Settings) -> Valley | None:
    """None for fewer rows than a parabola and one to spare, or fewer different settings than a parabola."""
    needed = rows_needed(settings)
    near = near_rows(trials, settings, needed)
    different = len(np.unique(settings.of_run[near]))
    if not settings.names or near.sum() < needed or different < needed - 1:
        return None
    return valley(settings.points[settings.of_run[near]], np.log(trials.loss[near]))


def rows_needed(settings: Settings) -> int:
    q = len(settings.names)
    return 1 + q + q * (q + 1) // 2 + 1


Scatter = tuple[float, int, float]
"""Pooled variance of ln L, its degrees of freedom, and the level of intervals."""


def describe(trials: Trials, settings: Settings, fit: Valley | None, scatter: Scatter) -> Rung:
    best = settings.points[settings.best]
    convex = has_minimum(settings, fit)
    tuned = {name: tuned_of(i, settings, fit, scatter) for i, name in enumerate(settings.names)}
    excess = fit.rise(best) if fit is not None and convex else None
    edge = edge_of(settings, fit, tuned, int(np.isfinite(trials.loss).sum()))
    return Rung(
        params=float(trials.params[0]),
        tokens=float(np.median(trials.tokens)),
        trials=trials,
        rows=fit.rows if fit is not None else 0,
        lr=tuned.get("lr"),
        batch_tokens=tuned.get("batch"),
        minimum=math.exp(fit.lowest) if fit is not None and convex else None,
        excess=excess,
        edge=edge,
        edge_cost=edge_cost(settings, tuned, excess) if edge else 0.0,
    )


def has_minimum(settings: Settings, fit: Valley | None) -> bool:
    """Whether the parabola has a lowest point, and no further beyond the grid than the grid is wide."""
    if fit is None or not fit.determined or not fit.convex:
        return False
    low, high = settings.points.min(axis=0), settings.points.max(axis=0)
    return bool(np.all((fit.at >= 2 * low - high) & (fit.at <= 2 * high - low)))


def tuned_of(i: int, settings: Settings, fit: Valley | None, scatter: Scatter) -> Tuned:
    tried = settings.points[np.isfinite(settings.loss), i]
    low, high, best = tried.min(), tried.max(), settings.points[settings.best, i]
    bounds = settings.points[:, i].min(), settings.points[:, i].max()
    at = best
    error, ends, curvature = math.inf, OPEN, None
    if fit is not None and fit.determined:
        curvature = float(fit.hessian[i, i])
    if fit is not None and has_minimum(settings, fit):
        at = fit.at[i]
        variance, freedom, level = scatter
        error = fit.error(i, variance)
        ends = within(fit.interval(i, variance, freedom, level), low, high)
    side = Edge.inside
    if min(at, best) <= bounds[0]:
        side = Edge.smallest
    elif max(at, best) >= bounds[1]:
        side = Edge.largest
    return Tuned(math.exp(at), error, ends, curvature, side)


def within(ends: tuple[float, float], low: float, high: float) -> Ends:
    """Natural units; an end that no run reaches is open."""
    left, right = (math.exp(end) if low <= end <= high else None for end in ends)
    return left, right


def edge_of(settings: Settings, fit: Valley | None, tuned: dict[str, Tuned], finished: int) -> str:
    """Why the optimum is not inside the grid; empty when it is."""
    if not settings.names:
        return "one setting"
    for i, (name, one) in enumerate(tuned.items()):
        if one.edge is not Edge.inside:
            end = settings.points[:, i].min() if one.edge is Edge.smallest else settings.points[:, i].max()
            if settings.points[settings.best, i] == end:
                return f"the best run has the {one.edge.value} {name} of the grid"
            return f"the optimal {name} lies outside the grid"
    if fit is None:
        return f"{finished} rows, at least {rows_needed(settings)} are needed"
    if not fit.determined:
        return f"{' and '.join(settings.names)} do not vary apart near the best run"
    return "" if has_minimum(settings, fit) else "the loss has no minimum in the grid"


def edge_cost(settings: Settings, tuned: dict[str, Tuned], excess: float | None) -> float:
    """How far ln L at the best setting may lie above its lowest: what the parabola says, or without one as
    much again as the last step towards the edge gained, all else equal."""
    if excess is not None:
        return excess
    best, gains = settings.points[settings.best], [0.0]
    for i, one in enumerate(tuned.values()):
        same = (np.delete(settings.points, i, axis=1) == np.delete(best, i)).all(axis=1)
        line = np.flatnonzero(same & (settings.points[:, i] != best[i]) & np.isfinite(settings.loss))
        if one.edge is not Edge.inside and len(line):
            nearest = line[np.argmin(np.abs(settings.points[line, i] - best[i]))]
            gains.append(float(settings.loss[nearest] - settings.loss[settings.best]))
    return max(gains)
