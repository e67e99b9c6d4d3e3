"""Show the cells of a sweep, what they will take and their state; spend nothing.

    harness plan experiment=demo
    harness plan 'sweep.axes=["model=27k,56k","horizon.flops=1e12,2e12"]' group=mine
    harness plan 'sweep.tied=[["model=27k,56k","optim.lr=0.01,0.007"]]' 'sweep.axes=["seed=0,1"]' group=mine
    harness plan experiment=demo_frontier            without axes, what `harness train` would train
    harness plan experiment=demo write=false         look only
    harness plan experiment=demo hardware=h100 cost.mfu=0.4 cost.price_per_device_hour=2.5
    harness plan experiment=demo format=json

What to train next for a bet, of the cells that the axes describe:
    harness plan group=mine next=4 budget_flops=1e13 params=2e6 tokens=8e7 \\
        'sweep.axes=["model=27k,56k,100k,220k","horizon.tokens_per_param=20,40,80"]'
    harness plan replay=table.csv [holdout_ratio=8] [seeds=3] [figure=replay.svg]

Axes multiply: every value of one with every value of the others; those of one list of `sweep.tied` move
together. `horizon.flops` gives isoFLOP slices: the tokens of a cell follow from its model and its budget.
The data must have been prepared.

Writes runs/<group>/plan.jsonl, one frozen config a cell. `harness sweep group=<group>` trains exactly these
cells, whatever is edited in between. A plan none of whose cells has begun is replaced by the next one.
Time comes from the speed of finished runs of the same shape in the folder, else from `hardware.peak_flops`
and `cost.mfu`; where neither is known it is unknown.

`next` adds to the plan the cells that take most off the uncertainty of the loss at `params` and `tokens` for
what they cost, given the finished runs of the folder (or of runs=). A cell that continues a trunk costs only
its further tokens. `harness sweep group=<group>` trains them. `replay` says what that would have saved on a
finished table: within 5 to 50 % of its FLOPs runs are taken by design, at random and the cheapest first, the
dearest are predicted from them, and set beside what the full table says of them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from harness.commands.cells import lost_sharing, merged_plan, own_cell, plan_lines, show_plan, sweep_cells
from harness.commands.root import Experiment, Format
from harness.config import task_overrides, verb
from harness.errors import WrongInput
from harness.report.terminal import print_lines
from harness.training.cell import Cell
from harness.training.feasible import refuse_untrainable

BET = ("budget_flops", "params", "tokens")


@dataclass(kw_only=True)
class Settings(Experiment):
    write: bool = True
    extend: bool = False
    next: int | None = None
    budget_flops: float | None = None
    params: float | None = None
    tokens: float | None = None
    replay: str | None = None
    holdout_ratio: float = 8.0
    seeds: int = 3
    figure: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.next is not None and self.next < 1:
            raise ValueError(f"next={self.next} must be at least 1: how many cells to choose")
        for name in BET:
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise ValueError(f"{name}={value} must be a positive number")
        if self.seeds < 1 or not self.holdout_ratio >= 1:
            raise ValueError("seeds and holdout_ratio must be at least 1")


@verb("plan", Settings)
def main(settings: Settings) -> None:
    if settings.replay is not None:
        from harness.commands.next_runs import show_replay

        show_replay(settings, settings.replay, settings.holdout_ratio, settings.seeds, settings.figure)
        return
    if settings.figure is not None:
        raise WrongInput("figure= draws a replay; add replay=TABLE")
    cells = cells_of(settings)
    if settings.next is not None:
        plan_next(settings, settings.next, cells)
        return
    if given := [name for name in BET if getattr(settings, name) is not None]:
        raise WrongInput(f"{given[0]} says what to choose cells for; add next=K, how many")
    lines = plan_lines(settings, cells)
    merged_plan(settings, lines, extend=settings.extend, write=settings.write)
    show_plan(settings, [line.cell for line in lines])
    if settings.format is Format.table and (lost := lost_sharing(cells)):
        print_lines(lost)


def cells_of(settings: Settings) -> list[Cell]:
    """Those of the axes; without any, the one run that is described. Raises what training would."""
    if not settings.sweep.is_empty or settings.next is not None:
        return sweep_cells(settings, "plan", Settings, task_overrides())
    cells = [own_cell(settings)]
    refuse_untrainable(cells)
    return cells


def plan_next(settings: Settings, count: int, cells: Sequence[Cell]) -> None:
    from harness.commands.next_runs import next_runs, show_next

    if settings.params is None or settings.tokens is None or settings.budget_flops is None:
        raise WrongInput(
            "next= needs the bet and what may be spent on it: params=, tokens= and budget_flops="
        )
    found = next_runs(settings, (settings.params, settings.tokens), cells, count, settings.budget_flops)
    lines = plan_lines(settings, found.cells)
    merged_plan(settings, lines, extend=True, write=settings.write)
    show_next(settings, found, [line.cell for line in lines])
