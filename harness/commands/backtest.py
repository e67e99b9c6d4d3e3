"""What a forecast from these runs would have been worth: hold out the dearest, bet on them from the rest.

    harness backtest runs=table.csv                    8x: fit C <= (smallest held-out C) / 8
    harness backtest runs=table.csv holdout_ratio=33
    harness backtest runs=table.csv 'where=["group=rpj"]' best_of=cell format=json
    harness backtest runs=table.csv fit.params=non_embedding 'columns={loss: bpb_mmlu}'
    harness backtest runs=runs/demo figure=backtest.svg

Held out are the runs with C >= C_max / 2. The weights of the laws, the interval and the verdict come from
a rolling origin over compute inside the rows that are fitted; a loss held out changes the errors alone.
Errors are (predicted - actual)/actual. Exit code 1 when the runs leave nothing to fit at that ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from harness.commands.bets import observe_bet, saying_refused
from harness.commands.figures import figure_line, typed, write_figure
from harness.commands.forecast import refuse_law
from harness.commands.observe import params_kind, runs_path
from harness.commands.root import Experiment, Format
from harness.commands.trajectories import loss_curves
from harness.config import task_overrides, verb
from harness.errors import CannotAnswer
from harness.forecast.backtest import backtest
from harness.report.backtest import backtest_figure, print_backtest
from harness.report.terminal import print_json, print_lines

NOTHING: dict[str, Any] = {"cases": [], "ensemble": None, "weights": {}, "baseline": None}
"""Beside the verdict and its reasons, of rows that cannot be bet on at all."""


@dataclass(kw_only=True)
class Settings(Experiment):
    holdout_ratio: float = 8.0
    figure: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (math.isfinite(self.holdout_ratio) and self.holdout_ratio >= 1):
            raise ValueError(f"holdout_ratio={self.holdout_ratio} must be a number of at least 1")


@verb("backtest", Settings)
def main(settings: Settings) -> None:
    refuse_law(task_overrides())
    with saying_refused(settings, NOTHING):
        observations = observe_bet(settings, params_kind(settings))
    curves = loss_curves(runs_path(settings))
    found = backtest(observations, settings.holdout_ratio, settings.forecast, curves).to_json()
    if settings.figure and found["points"]:
        command = typed("backtest")
        found["figure"] = write_figure(settings.figure, backtest_figure(found, command), command)
    if settings.format is Format.json:
        print_json(found)
    else:
        print_backtest(found)
        if "figure" in found:
            print_lines(figure_line(found["figure"]))
    if found["ensemble"] is None:
        raise CannotAnswer(f"no backtest: {'; '.join(found['reasons'])}")
