"""Show the cells of a sweep, their FLOPs and their state; spend nothing.

    harness plan experiment=demo
    harness plan 'sweep.axes=["model=27k,56k","horizon.flops=1e12,2e12"]' group=mine
    harness plan experiment=demo write=true          also write runs/<group>/plan.jsonl and the frozen configs
    harness plan experiment=demo format=json

Axes multiply: every value of one with every value of the others. `horizon.flops` gives isoFLOP slices:
the tokens of a cell follow from its model and its budget. The data must have been prepared.
"""

from __future__ import annotations

from dataclasses import dataclass

from harness.commands.cells import show_plan, sweep_cells, write_cells
from harness.commands.root import Experiment, planned
from harness.config import task_overrides, verb


@dataclass(kw_only=True)
class Settings(Experiment):
    write: bool = False
    extend: bool = False


@verb("plan", Settings)
def main(settings: Settings) -> None:
    cells = sweep_cells(settings, "plan", Settings, task_overrides())
    if settings.write:
        write_cells(settings, cells, extend=settings.extend)
    show_plan(settings, [planned(cell) for cell in cells])
