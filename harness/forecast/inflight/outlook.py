"""How every running cell of a sweep will end, how that compares with the best at its budget, and the rule
that follows.

The rule kills a cell that will probably diverge, or that will not beat the best at its budget: the best
finished run that cost no more, or the leader among the cells that run beside it. Both thresholds are one
number, the false-kill rate. A probability that means what it says bounds the share of wrong kills by its
threshold, however often one looks, because it is a martingale (optional stopping).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

import numpy as np

from harness.forecast.inflight.loss import LossPredictor
from harness.forecast.inflight.mixture import Mixture
from harness.forecast.inflight.reward import Bounds, RewardPredictor
from harness.forecast.inflight.rise import base_rate, diverges
from harness.forecast.inflight.trajectory import SAME_BUDGET, Metric, Trajectory
from harness.laws.surfaces import Floats

LOST = 0.5
"""Probability of divergence beyond which no end is predicted: every prediction is of runs that do not."""


class Rivals(Enum):
    """Whom a cell must beat: everything at its budget, or repeats of its own size and length alone."""

    budget = "budget"
    cell = "cell"


class Verdict(Enum):
    keep = "keep"
    kill = "kill"
    unknown = "unknown"


@dataclass(kw_only=True)
class Rule:
    """`earliest` is the share of a run before which nothing is killed for being slow."""

    false_kill_rate: float = 0.05
    earliest: float = 0.1
    rivals: Rivals = Rivals.budget
    level: float = 0.9
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("false_kill_rate", "level"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"rule.{name} must lie between 0 and 1, not {getattr(self, name)}")
        if not 0 <= self.earliest < 1:
            raise ValueError(f"rule.earliest must lie in [0, 1), not {self.earliest}")


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """Of one running cell. `final` and `interval` are None where `reason` says why nothing can be said;
    `beats_best` is None where nothing else has its budget."""

    run_id: str
    share: float
    latest: float
    final: float | None
    interval: tuple[float, float] | None
    beats_best: float | None
    best: float | None
    best_run_id: str
    diverges: float
    verdict: Verdict
    reason: str
    lenders: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        interval = None if self.interval is None else list(self.interval)
        latest = self.latest if np.isfinite(self.latest) else None
        return {
            **vars(self), "latest": latest, "interval": interval, "verdict": self.verdict.value,
            "lenders": list(self.lenders),
        }  # fmt: skip


@dataclass(frozen=True)
class Drawn:
    """Draws of the end of one run, lower ones better."""

    ends: Floats
    median: float

    @classmethod
    def of(cls, ends: Floats) -> Drawn:
        return cls(ends, float(np.median(ends)))


Predictor = LossPredictor | RewardPredictor


def build_predictor(
    metric: Metric,
    finished: Sequence[Trajectory],
    running: Sequence[Trajectory],
    bounds: Bounds | None = None,
) -> Predictor:
    if metric is Metric.loss:
        return LossPredictor(finished)
    return RewardPredictor(finished, bounds or Bounds.of([*finished, *running]))


def look_ahead(
    running: Sequence[Trajectory],
    finished: Sequence[Trajectory],
    metric: Metric,
    rule: Rule,
    predictors: dict[str, Predictor] | None = None,
    ended: Sequence[Trajectory] = (),
    bounds: Bounds | None = None,
) -> list[Outlook]:
    """One outlook per running cell, from it, the cells beside it, and `finished` runs of its sweep.

    `predictors` overrides, by run id, which predictor is asked; `ended` are all runs that ended, diverged
    ones included, when those are more than the finished. `bounds` are of a reward, inferred if not given.
    """
    shared = None if predictors else build_predictor(metric, finished, running, bounds)
    rate = base_rate(ended or finished)
    lost = {run.run_id: diverges(signed(run, metric), rate) for run in running}
    mixtures: dict[str, Mixture | str] = {}
    for run in running:
        predictor = predictors[run.run_id] if predictors else shared
        assert predictor is not None
        chance = lost[run.run_id]
        mixtures[run.run_id] = (
            predictor.predict(run) if chance <= LOST else f"diverges with probability {chance:.3f}"
        )
    drawn = {
        run.run_id: Drawn.of(metric.sign * found.draws(rule.seed, number))
        for number, run in enumerate(running)
        if not isinstance(found := mixtures[run.run_id], str)
    }
    return [
        outlook(
            run,
            mixtures[run.run_id],
            drawn,
            rivals(run, running, finished, rule),
            metric,
            rule,
            lost[run.run_id],
        )
        for run in running
    ]


def signed(run: Trajectory, metric: Metric) -> Trajectory:
    """With lower values better."""
    return replace(run, values=metric.sign * run.values)


def rivals(
    run: Trajectory, running: Sequence[Trajectory], finished: Sequence[Trajectory], rule: Rule
) -> tuple[list[Trajectory], list[Trajectory]]:
    """The cells beside it and the finished runs that it is measured against."""
    if rule.rivals is Rivals.cell:
        beside = [one for one in running if one is not run and one.cell == run.cell]
        return beside, [one for one in finished if one.cell == run.cell]
    near = [one for one in running if one is not run and same_budget(one, run)]
    return near, [one for one in finished if one.budget <= run.budget * SAME_BUDGET]


def same_budget(one: Trajectory, other: Trajectory) -> bool:
    return 1 / SAME_BUDGET <= one.budget / other.budget <= SAME_BUDGET


def outlook(
    run: Trajectory,
    mixture: Mixture | str,
    drawn: dict[str, Drawn],
    against: tuple[list[Trajectory], list[Trajectory]],
    metric: Metric,
    rule: Rule,
    lost: float,
) -> Outlook:
    beside, finished = against
    mine = drawn.get(run.run_id)
    final = interval = None
    chance, best, best_id = None, None, ""
    if mine is not None:
        final = metric.sign * mine.median
        tail = (1 - rule.level) / 2
        ends = sorted(metric.sign * float(q) for q in np.quantile(mine.ends, [tail, 1 - tail]))
        interval = (ends[0], ends[1])
        chance, best, best_id = chance_to_beat(mine, beside, finished, drawn, metric)
    verdict, reason = judge(run, mixture, chance, lost, best_id, rule)
    return Outlook(
        run_id=run.run_id,
        share=run.share,
        latest=float(run.values[-1]) if len(run.values) else float("nan"),
        final=final,
        interval=interval,
        beats_best=chance,
        best=best,
        best_run_id=best_id,
        diverges=lost,
        verdict=verdict,
        reason=reason,
        lenders=() if isinstance(mixture, str) else mixture.lenders,
    )


def chance_to_beat(
    mine: Drawn,
    beside: Sequence[Trajectory],
    finished: Sequence[Trajectory],
    drawn: dict[str, Drawn],
    metric: Metric,
) -> tuple[float | None, float | None, str]:
    """The smaller of the chances against the best finished run and against the leader beside it.

    Against the leader alone, not against all at once: of many equals none is likely to be the best.
    """
    found: list[tuple[float, float, str]] = []
    if ends := [(metric.sign * run.final, run.run_id) for run in finished if run.final is not None]:
        best, name = min(ends)
        found.append((float((mine.ends < best).mean()), metric.sign * best, name))
    if near := [(drawn[run.run_id].median, run.run_id) for run in beside if run.run_id in drawn]:
        best, name = min(near)
        found.append((float((mine.ends < drawn[name].ends).mean()), metric.sign * best, name))
    return min(found) if found else (None, None, "")


def judge(
    run: Trajectory,
    mixture: Mixture | str,
    chance: float | None,
    lost: float,
    best_id: str,
    rule: Rule,
) -> tuple[Verdict, str]:
    if lost > 1 - rule.false_kill_rate:
        return Verdict.kill, f"diverges with probability {lost:.3f}"
    if isinstance(mixture, str):
        return Verdict.unknown, mixture
    if chance is None:
        return Verdict.keep, "nothing else at its budget"
    if chance >= rule.false_kill_rate:
        return Verdict.keep, ""
    if run.share < rule.earliest * (1 - 1e-9):
        return Verdict.keep, f"too early to kill: {run.share:.0%} of the run"
    return Verdict.kill, f"beats {best_id} with probability {chance:.3f}"
