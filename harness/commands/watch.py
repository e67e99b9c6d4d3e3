"""How the running cells of a sweep will end, from what they have logged; and which are worth killing.

    harness watch sweep=mine                             the running cells of runs/mine
    harness watch sweep=path/to/runs figure=watch.svg format=json
    harness watch sweep=mine rule.rivals=cell            against repeats of the same size and length alone
    harness watch replay=curves.csv                      old logs: what would have been predicted and killed
    harness watch replay=curves.csv by=group             each value of a column is a sweep of its own
    harness watch replay=curves.csv 'where=["kind=val"]' lenders=cheaper
    harness watch replay=runs/mine                       the finished runs of a sweep
    harness watch replay=rl.csv metric=reward 'columns={step: gpu_hours, reward: score}'

Loss: the shape of the curve under its learning-rate schedule (the multi-power law; equal shares of the run
where no rate is logged) is borrowed from finished runs of the sweep, the level is the run's own. With no
finished run there is no prediction. Reward: a saturating sigmoid, from the run alone if need be.

The rule (`rule.false_kill_rate`, by default .05) kills a cell that will not beat the best at its budget, or
diverges. Replay asks at `shares` of every run, seeing only smaller runs (`lenders=cheaper`: only cheaper
ones) and nothing of its own future but its plan.

A table has the columns run_id, step, loss or reward, and lr where it is known; params_*, flops and tokens
stand in the same rows or in a table of runs: runs=X.csv, by default the one beside X_curves.csv.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import WrongInput
from harness.forecast.inflight.outlook import Rule
from harness.forecast.inflight.replay import SHARES, LendersOf, replay
from harness.forecast.inflight.tables import read_trajectories
from harness.forecast.inflight.trajectory import Metric, Trajectory
from harness.report.terminal import StageProgress, print_json
from harness.report.watch import print_replay


@dataclass(kw_only=True)
class Settings(Experiment):
    watched: str | None = None
    replay: str | None = None
    metric: Metric = Metric.loss
    by: str | None = None
    lenders: LendersOf = LendersOf.smaller
    shares: list[float] = field(default_factory=lambda: list(SHARES))
    rule: Rule = field(default_factory=Rule)
    figure: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.shares or not all(0 < share < 1 for share in self.shares):
            raise ValueError(f"shares={self.shares} must lie between 0 and 1")


@verb("watch", Settings)
def watch(settings: Settings) -> None:
    if settings.replay is None:
        raise WrongInput("say which sweep to watch: sweep=GROUP, or replay=curves.csv for old logs")
    replay_runs(settings, settings.replay)


def main() -> None:
    """`sweep` is a group of configs as well, which Hydra would look for the sweep's name in."""
    sys.argv = [
        f"watched={word.removeprefix('sweep=')}" if word.startswith("sweep=") else word for word in sys.argv
    ]
    watch()


def replay_runs(settings: Settings, source: str) -> None:
    with StageProgress() as progress:
        result = replay(
            old_runs(settings, Path(source)),
            settings.metric,
            settings.rule,
            settings.lenders,
            settings.shares,
            progress.update,
        )
    if settings.format is Format.json:
        print_json(result.to_json())
    else:
        print_replay(result.to_json(), source)


def old_runs(settings: Settings, source: Path) -> list[Trajectory]:
    if source.is_dir():
        from harness.commands.trajectories import watched

        found = watched(source, settings.metric)
        return [*found.finished, *found.diverged]
    runs = Path(settings.runs) if settings.runs else None
    return read_trajectories(source, settings.metric, settings.where, settings.columns, runs, settings.by)
