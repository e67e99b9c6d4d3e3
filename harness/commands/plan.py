"""Show the cells of a sweep, what they will take and their state; spend nothing.

    harness plan experiment=demo
    harness plan 'sweep.axes=["model=27k,56k","horizon.flops=1e12,2e12"]' group=mine
    harness plan 'sweep.tied=[["model=27k,56k","optim.lr=0.01,0.007"]]' 'sweep.axes=["seed=0,1"]' group=mine
    harness plan experiment=demo write=false         look only
    harness plan experiment=demo hardware=h100 cost.mfu=0.4 cost.price_per_device_hour=2.5
    harness plan experiment=demo format=json

Axes multiply: every value of one with every value of the others; those of one list of `sweep.tied` move
together. `horizon.flops` gives isoFLOP slices: the tokens of a cell follow from its model and its budget.
The data must have been prepared.

Writes runs/<group>/plan.jsonl, one frozen config a cell. `harness sweep group=<group>` trains exactly these
cells, whatever is edited in between. A plan none of whose cells has begun is replaced by the next one.
Time comes from the speed of finished runs of the same shape in the folder, else from `hardware.peak_flops`
and `cost.mfu`; where neither is known it is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.commands.cells import lost_sharing, merged_plan, plan_lines, show_plan, sweep_cells
from harness.commands.root import Experiment, Format
from harness.config import task_overrides, verb
from harness.report.terminal import print_lines


@dataclass(kw_only=True)
class Settings(Experiment):
    write: bool = True
    extend: bool = False


@verb("plan", Settings)
def main(settings: Settings) -> None:
    cells = sweep_cells(settings, "plan", Settings, task_overrides())
    lines = plan_lines(settings, cells)
    merged_plan(settings, lines, extend=settings.extend, write=settings.write)
    show_plan(settings, [line.cell for line in lines])
    if settings.format is Format.table and (lost := lost_sharing(cells)):
        print_lines(lost)
