"""Where every planned cell of a sweep stands: from its files, then from squeue where Slurm holds cells of it.
Where its jobs ended without a word in its files, sacct says how, if there are accounts; it decides nothing.

    harness status experiment=demo
    harness status group=mine
    harness status group=mine format=json

planned, queued (a running `harness sweep` holds it, or a job, and why that waits, or jobs that will submit it
as they end), running, interrupted (it saved and stopped), lost (its process vanished; it goes on from its
checkpoint), failed or killed (and why), diverged, done, damaged. Runs of the folder that are in no plan are
listed as well.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.commands.cells import unplanned
from harness.commands.root import Experiment, Format
from harness.commands.unprepared import show_first
from harness.config import verb
from harness.errors import CannotAnswer
from harness.report.tables import print_states
from harness.report.terminal import print_json
from harness.runs import PLAN
from harness.sweep.ledger import CellState, awaited, counts, survey
from harness.sweep.plan import PlannedCell, read_plan
from harness.sweep.slurm.accounting import explained
from harness.sweep.slurm.jobs import NO_JOBS, Jobs, jobs_of


@dataclass(kw_only=True)
class Settings(Experiment):
    pass


@verb("status", Settings)
def main(settings: Settings) -> None:
    if not (settings.folder / PLAN).exists() and show_first(settings):
        return
    jobs = jobs_if_known(settings.folder)
    states = [awaited(state, jobs) for state in survey(settings.folder, cells_of(settings), jobs)]
    show_states(settings, explained(settings.folder, states))


def jobs_if_known(root: Path) -> Jobs:
    """What Slurm holds of the sweep; the files must do where it does not answer."""
    try:
        return jobs_of(root)
    except CannotAnswer as error:
        print(f"without the queue: {error}", file=sys.stderr)
        return NO_JOBS


def cells_of(settings: Experiment) -> list[PlannedCell]:
    """The planned cells, then the runs beside them. Raises WrongInput when there are neither."""
    root = settings.folder
    plan = read_plan(root) if (root / PLAN).exists() else []
    beside = unplanned(root, {cell.run_id for cell in plan})
    return [*plan, *beside] or read_plan(root)


def show_states(settings: Experiment, states: Sequence[CellState]) -> None:
    if settings.format is Format.json:
        print_json({"counts": counts(states), "cells": [plain(state) for state in states]})
    else:
        print_states(settings.group, states)


def plain(state: CellState) -> dict[str, Any]:
    return {**vars(state), "cell": vars(state.cell), "status": state.status.value}
