"""How the running cells of a sweep will end, from what they have logged; and which are worth killing.

    harness watch sweep=mine                             the running cells of runs/mine
    harness watch sweep=path/to/runs figure=watch.svg format=json
    harness watch sweep=mine dry=false                   kills what the rule would kill
    harness watch sweep=mine rule.rivals=cell            against repeats of the same size and length alone
    harness watch sweep=rl.jsonl metric=reward until=2000     a table of step and reward, 2000 steps planned
    harness watch sweep=rl.csv metric=reward 'bounds=[-10,10]'    runs whose column `horizon` is not reached
    harness watch replay=curves.csv                      old logs: what would have been predicted and killed
    harness watch replay=curves.csv by=group             each value of a column is a sweep of its own
    harness watch replay=curves.csv 'where=["kind=val"]' lenders=cheaper
    harness watch replay=runs/mine                       the finished runs of a sweep
    harness watch replay=rl.csv metric=reward 'columns={step: gpu_hours, reward: score}'

Loss: the shape of the curve under its learning-rate schedule (the multi-power law; equal shares of the run
where no rate is logged) is borrowed from finished runs of the sweep, the level is the run's own. With no
finished run there is no prediction. Reward: a saturating sigmoid, from the run alone once it rises; it lies
within `bounds`, by default [0,1] where all that is seen does, else some way beyond that.

The rule (`rule.false_kill_rate`, by default .05) kills a cell that will not beat the best at its budget, or
diverges. A killed cell gets a killed.json with the evidence, its process is stopped, and
`harness sweep` starts it again only with retry_killed=true.

Replay asks at `shares` of every run, seeing only smaller runs (`lenders=cheaper`: only cheaper ones) and
nothing of its own future but its plan.

A table has the columns step, loss or reward, run_id unless it is one run, and lr where it is known; params_*,
flops and tokens stand in the same rows or in a table of runs: runs=X.csv, by default the one beside
X_curves.csv. A column horizon, the step at which a run is planned to end, or until= for all of them, tells
running from finished runs; `columns={step: gpu_hours}` measures both in another unit.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import __version__
from harness.commands.figures import figure_line, write_figure
from harness.commands.root import Experiment, Format
from harness.commands.trajectories import Watched, watched
from harness.config import verb
from harness.errors import CannotAnswer, WrongInput
from harness.forecast.inflight.outlook import Outlook, Rule, Verdict, look_ahead
from harness.forecast.inflight.replay import SHARES, LendersOf, replay
from harness.forecast.inflight.reward import Bounds
from harness.forecast.inflight.tables import read_trajectories
from harness.forecast.inflight.trajectory import Metric, Trajectory
from harness.report.terminal import StageProgress, print_json, print_lines
from harness.report.watch import print_endings, print_outlooks, print_replay, watch_figure
from harness.sweep.kill import Death, Ending, kill


@dataclass(kw_only=True)
class Settings(Experiment):
    watched: str | None = None
    replay: str | None = None
    metric: Metric = Metric.loss
    by: str | None = None
    until: float | None = None
    bounds: list[float] = field(default_factory=list)
    lenders: LendersOf = LendersOf.smaller
    shares: list[float] = field(default_factory=lambda: list(SHARES))
    rule: Rule = field(default_factory=Rule)
    dry: bool = True
    wait_seconds: float = 90.0
    figure: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"shares={self.shares} must lie between 0 and 1")
        if self.bounds and (self.metric is not Metric.reward or len(self.bounds) != 2):
            raise ValueError(f"bounds={self.bounds} must be two numbers, and goes with metric=reward")
        if self.until is not None and self.until <= 0:
            raise ValueError(
                f"until={self.until} must be positive: the step at which runs are planned to end"
            )


@verb("watch", Settings)
def watch(settings: Settings) -> None:
    if (settings.replay is None) == (settings.watched is None):
        raise WrongInput("say which sweep to watch: sweep=GROUP, or replay=curves.csv for old logs")
    if settings.replay is not None:
        if settings.figure:
            raise WrongInput("figure= draws the running cells of sweep=; a replay has none")
        replay_runs(settings, settings.replay)
        return
    folder = sweep_folder(settings)
    if folder.is_file() and not settings.dry:
        raise WrongInput(f"{folder} is a table; only cells of a sweep's folder can be killed")
    found, outlooks = look(settings, folder)
    endings = {} if settings.dry else act(settings, folder, outlooks)
    figure = draw(settings, *(look(settings, folder) if endings else (found, outlooks)))
    show(settings, found, outlooks, endings, figure)


def look(settings: Settings, folder: Path) -> tuple[Watched, list[Outlook]]:
    found = watched_table(settings, folder) if folder.is_file() else watched(folder, settings.metric)
    outlooks = look_ahead(
        found.running,
        found.finished,
        settings.metric,
        settings.rule,
        ended=[*found.finished, *found.diverged],
        bounds=bounds(settings, [*found.running, *found.finished]),
    )
    return found, outlooks


def draw(settings: Settings, found: Watched, outlooks: Sequence[Outlook]) -> dict[str, Any] | None:
    """As the command under it would draw it again, which kills nothing: after the kills."""
    if not settings.figure:
        return None
    command = typed(without="dry=")
    text = watch_figure(outlooks, found.running, found.finished, settings.metric, command)
    return write_figure(settings.figure, text, command)


def bounds(settings: Settings, runs: Sequence[Trajectory]) -> Bounds | None:
    """Raises WrongInput when the rewards lie outside of those given."""
    if not settings.bounds:
        return None
    given = Bounds(*settings.bounds)
    given.hold(runs)
    return given


def sweep_folder(settings: Settings) -> Path:
    """sweep= is a group of runs_dir=, a folder, or a table of curves."""
    name = str(settings.watched)
    own = Path(settings.runs_dir) / name
    return own if own.is_dir() else Path(name)


def watched_table(settings: Settings, path: Path) -> Watched:
    runs = old_runs(settings, path)
    running = [run for run in runs if run.final is None and not run.diverged]
    if not running:
        raise CannotAnswer(
            f"{path}: no run goes on; until= or a column horizon says where runs are planned to end, "
            "replay= asks of ended ones"
        )
    return Watched(
        running=running,
        finished=[run for run in runs if run.final is not None],
        diverged=[run for run in runs if run.diverged],
        left_out=[],
    )


def act(settings: Settings, folder: Path, outlooks: Sequence[Outlook]) -> dict[str, Ending]:
    when = datetime.now(UTC).isoformat(timespec="seconds")
    rule = {**vars(settings.rule), "rivals": settings.rule.rivals.value}
    said = {
        "rule": rule,
        "metric": settings.metric.value,
        "at": when,
        "version": __version__,
        "command": typed(),
    }
    deaths = {
        one.run_id: Death(one.reason, {"outlook": one.to_json(), **said})
        for one in outlooks
        if one.verdict is Verdict.kill
    }
    return kill(folder, deaths, settings.wait_seconds)


def typed(without: str = " ") -> str:
    """The command, to be typed again, but for words that begin with `without`."""
    words = [
        word.replace("watched=", "sweep=", 1) if word.startswith("watched=") else word
        for word in sys.argv[1:]
        if not word.startswith(without)
    ]
    return shlex.join(["harness", "watch", *words])


def show(
    settings: Settings,
    found: Watched,
    outlooks: Sequence[Outlook],
    endings: dict[str, Ending],
    figure: dict[str, Any] | None,
) -> None:
    if settings.format is Format.json:
        print_json({**as_json(settings, found, outlooks, endings), "figure": figure})
        return
    print_outlooks(str(settings.watched), outlooks, len(found.finished), settings.rule, settings.metric)
    print_endings(outlooks, endings, settings.dry)
    if figure is not None:
        print_lines(figure_line(figure))


def as_json(
    settings: Settings, found: Watched, outlooks: Sequence[Outlook], endings: dict[str, Ending]
) -> dict[str, Any]:
    return {
        "metric": settings.metric.value,
        "finished": len(found.finished),
        "diverged": len(found.diverged),
        "left_out": [vars(one) for one in found.left_out],
        "level": settings.rule.level,
        "stated_false_kill_rate": settings.rule.false_kill_rate,
        "dry": settings.dry,
        "cells": [one.to_json() for one in outlooks],
        "killed": {run_id: ending.value for run_id, ending in endings.items()},
    }


def main() -> None:
    """`sweep` is a group of configs as well, which Hydra would look for the sweep's name in."""
    sys.argv = [re.sub("^sweep=", "watched=", word) for word in sys.argv]
    watch()


def replay_runs(settings: Settings, source: str) -> None:
    runs = old_runs(settings, Path(source))
    with StageProgress() as progress:
        result = replay(
            runs,
            settings.metric,
            settings.rule,
            settings.lenders,
            settings.shares,
            progress.update,
            bounds(settings, runs),
        )
    if settings.format is Format.json:
        print_json(result.to_json())
    else:
        print_replay(result.to_json(), source)


def old_runs(settings: Settings, source: Path) -> list[Trajectory]:
    if source.is_dir():
        found = watched(source, settings.metric)
        return [*found.finished, *found.diverged]
    if not source.exists():
        raise WrongInput(f"{source} does not exist; give a table of curves or the folder of a sweep")
    runs = Path(settings.runs) if settings.runs else None
    return read_trajectories(
        source, settings.metric, settings.where, settings.columns, runs, settings.by, settings.until
    )
