"""Finished runs as they stood at some share of their length: what would have been predicted, whom the rule
would have killed, and how that would have ended. Nothing of a run's own future is seen but its plan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from harness.errors import CannotAnswer
from harness.forecast.inflight.outlook import (
    Outlook,
    Predictor,
    Rivals,
    Rule,
    Verdict,
    build_predictor,
    look_ahead,
    same_budget,
)
from harness.forecast.inflight.reward import Bounds
from harness.forecast.inflight.trajectory import SAME_BUDGET, Metric, Trajectory

SHARES = (0.1, 0.25, 0.5)


class LendersOf(Enum):
    """Which runs had finished when one was looked at: those of a smaller size, or every cheaper one."""

    smaller = "smaller"
    cheaper = "cheaper"


@dataclass(frozen=True)
class Look:
    """One run at one share, beside what it came to."""

    run: Trajectory
    share: float
    outlook: Outlook
    blind: float

    @property
    def error(self) -> float | None:
        if self.outlook.final is None or self.run.final is None:
            return None
        return self.outlook.final - self.run.final

    @property
    def inside(self) -> bool:
        """Whether the interval holds the result."""
        interval = self.outlook.interval
        return interval is not None and interval[0] <= self.run.result <= interval[1]


@dataclass(frozen=True, kw_only=True)
class Replay:
    metric: Metric
    rule: Rule
    lenders: LendersOf
    runs: tuple[Trajectory, ...]
    looks: tuple[Look, ...]

    def to_json(self) -> dict[str, Any]:
        return {
            "metric": self.metric.value,
            "lenders": self.lenders.value,
            "runs": len(self.runs),
            "level": self.rule.level,
            "errors": [self.errors(share) for share in sorted({look.share for look in self.looks})],
            "kill_rule": self.kills(),
            "looks": [look_json(look) for look in self.looks],
        }

    def errors(self, share: float) -> dict[str, Any]:
        """Over the runs with a prediction; `schedule_blind` is a power law of
        their own rows, for losses."""
        mine = [look for look in self.looks if look.share == share]
        seen = [look for look in mine if look.error is not None]
        unknown = {"share": share, "n": len(seen), "without": len(mine) - len(seen)}
        if not seen:
            return {**unknown, "mean_absolute_error": None}
        errors = np.array([look.error for look in seen])
        finals = np.array([look.run.result for look in seen])
        inside = [look.inside for look in seen]
        blind = np.abs([look.blind for look in seen] - finals)
        return {
            **unknown,
            "mean_absolute_error": float(np.abs(errors).mean()),
            "bias": float(errors.mean()),
            "median_relative_error": float(np.median(np.abs(errors / finals))),
            "coverage": float(np.mean(inside)),
            "schedule_blind_mean_absolute_error": float(blind.mean()) if np.isfinite(blind).all() else None,
        }

    def kills(self) -> dict[str, Any]:
        """False: killed, although nothing at its budget, nor cheaper, ended better."""
        first: dict[str, Look] = {}
        for look in sorted(self.looks, key=lambda one: one.share):
            if look.outlook.verdict is Verdict.kill:
                first.setdefault(look.run.run_id, look)
        best = {run.run_id for run in self.runs if is_best(run, self.runs, self.metric, self.rule.rivals)}
        wrong = [name for name in first if name in best]
        saved = sum((1 - look.share) * look.run.budget for look in first.values())
        watched = {look.run.run_id for look in self.looks}
        return {
            "stated_false_kill_rate": self.rule.false_kill_rate,
            "killed": len(first),
            "watched": len(watched),
            "false_kills": len(wrong),
            "false_kill_rate": len(wrong) / len(first) if first else None,
            "best_runs": len(best & watched),
            "best_runs_killed_rate": len(wrong) / len(best & watched) if best & watched else None,
            "compute_saved": saved / sum(run.budget for run in self.runs),
            "wrong": wrong,
        }


def look_json(look: Look) -> dict[str, Any]:
    return {**look.outlook.to_json(), "share": look.share, "actual": look.run.final, "error": look.error}


def replay(
    runs: Sequence[Trajectory],
    metric: Metric,
    rule: Rule,
    lenders: LendersOf,
    shares: Sequence[float] = SHARES,
    progress: Callable[[str, int, int], None] = lambda *_: None,
    bounds: Bounds | None = None,
) -> Replay:
    """Every run of every sweep among `runs`, cheapest first. Runs of one budget go side by side.

    Raises CannotAnswer when no run has finished.
    """
    if not any(run.final is not None for run in runs):
        raise CannotAnswer("no run has ended; there is nothing to replay")
    ended = [run for run in runs if run.final is not None or run.diverged]
    looks: list[Look] = []
    for sweep in sorted({run.sweep for run in ended}):
        mine = sorted((run for run in ended if run.sweep == sweep), key=lambda run: (run.budget, run.run_id))
        predictors: dict[tuple[str, ...], Predictor] = {}
        for number, group in enumerate(groups := side_by_side(mine)):
            progress(f"replay {sweep}".strip(), number, len(groups))
            looks += replay_group(group, mine, metric, rule, lenders, shares, predictors, bounds)
    return Replay(metric=metric, rule=rule, lenders=lenders, runs=tuple(ended), looks=tuple(looks))


def side_by_side(runs: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Runs in order of budget, those of one budget together."""
    found: list[list[Trajectory]] = []
    for run in runs:
        if found and same_budget(run, found[-1][0]):
            found[-1].append(run)
        else:
            found.append([run])
    return found


def replay_group(
    group: Sequence[Trajectory],
    sweep: Sequence[Trajectory],
    metric: Metric,
    rule: Rule,
    lenders: LendersOf,
    shares: Sequence[float],
    predictors: dict[tuple[str, ...], Predictor],
    bounds: Bounds | None,
) -> list[Look]:
    before = [run for run in sweep if run.budget * SAME_BUDGET < group[0].budget]
    asked: dict[str, Predictor] = {}
    for run in group:
        lending = [one for one in lend_to(run, sweep, before, lenders) if one.final is not None]
        key = tuple(one.run_id for one in lending)
        if key not in predictors:
            begun = [one.until(min(shares)) for one in group]
            predictors[key] = build_predictor(metric, lending, begun, bounds)
        asked[run.run_id] = predictors[key]
    found: list[Look] = []
    for share in shares:
        begun = [run.until(share) for run in group]
        seen = look_ahead(begun, before, metric, rule, asked)
        blind = [schedule_blind(one) if metric is Metric.loss else float("nan") for one in begun]
        found += [
            Look(run, share, outlook, end) for run, outlook, end in zip(group, seen, blind, strict=True)
        ]
    return found


def lend_to(
    run: Trajectory, sweep: Sequence[Trajectory], before: Sequence[Trajectory], lenders: LendersOf
) -> Sequence[Trajectory]:
    if lenders is LendersOf.smaller and run.params is not None:
        return [one for one in sweep if one.params is not None and one.params * SAME_BUDGET < run.params]
    return before


def schedule_blind(run: Trajectory) -> float:
    """What a power law of steps, L0 + A s^-alpha, fitted to the rows so far says of the end; nan for few."""
    at = run.rows(64, 0.0)
    if len(at) < 3:
        return float("nan")
    steps, values = run.steps[at] / run.end, run.values[at]
    found = []
    for alpha in np.linspace(0.1, 1.5, 29):
        design = np.stack([np.ones(len(at)), steps**-alpha], axis=1)
        solution, *_ = np.linalg.lstsq(design, values, rcond=None)
        found.append((float(((design @ solution - values) ** 2).sum()), float(solution.sum())))
    return min(found)[1]


def is_best(run: Trajectory, runs: Sequence[Trajectory], metric: Metric, rivals: Rivals) -> bool:
    """Whether no other run of its sweep that cost no more, or that repeats its cell, ended better."""
    if run.final is None:
        return False
    others = [one for one in runs if one is not run and one.sweep == run.sweep and one.final is not None]
    if rivals is Rivals.cell:
        others = [one for one in others if one.cell == run.cell]
    else:
        others = [one for one in others if one.budget <= run.budget * SAME_BUDGET]
    return all(metric.sign * run.final < metric.sign * one.final for one in others if one.final is not None)
