"""What the cluster would not take yet, when a task ends: submitted, or trained by that task itself.

A cluster may cap how many tasks a user has in its queue (MaxSubmitJobs), or how many jobs it knows at all,
those included that ended minutes ago (MaxJobCount). The task that ends still counts, and those beside it may
end at the same moment: where all are refused and none is pending, nobody would be left to submit what waits.
So a task then takes the next waiting one over and goes on in the job that it has. Out of time or preempted it
is queued again with all its cells: a capped sweep gets to its end with no other process.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.errors import CannotAnswer
from harness.runs import one_at_a_time, this_job
from harness.sweep.slurm.manifest import (
    FOLDER,
    Manifest,
    path_of,
    read_manifest,
    read_manifests,
    write_manifest,
)
from harness.sweep.slurm.scheduler import held_tasks, is_over
from harness.sweep.slurm.submit import LOCK, newest, noted, submit_waiting


def feed(root: Path, number: int, task: int) -> bool:
    """Submit what waits, as far as there is room by now; whether task `task` of array `number`, which calls
    this as it ends, has taken cells over instead and must go on."""
    with one_at_a_time(root / FOLDER, LOCK):
        return not somebody_else_will(root, number) and not_replaced() and take_over(root, number, task)


def somebody_else_will(root: Path, number: int) -> bool:
    """Submit what waits; whether nothing does any more or a pending task is left that will try again. False
    also where the scheduler does not answer: there may be none."""
    try:
        before = read_manifests(root)
        tasks = held_tasks([manifest.name for manifest in before])
        manifests = noted(root, before, tasks)
        pending = any(task.state == "PENDING" for task in tasks)
        mine = read_manifest(path_of(root, number))
        if any(manifest.at_once and suits(mine, manifest) for manifest in manifests):
            return pending  # an array of its own would run only after those before it, one after another
        refusal = submit_waiting(root, newest(tasks))
    except CannotAnswer as error:
        print(error, file=sys.stderr)
        return False
    return not refusal or pending or waits(read_manifests(root)) < waits(manifests)


def suits(mine: Manifest, other: Manifest) -> bool:
    """Whether something waits there that asks for what the tasks here have."""
    return other.waits > 0 and other.settings == mine.settings


def waits(manifests: Sequence[Manifest]) -> int:
    return sum(manifest.waits for manifest in manifests)


def not_replaced() -> bool:
    """Whether this is still the execution that the scheduler means: a node may be cut off and not know."""
    mine = this_job()
    return mine is not None and not is_over(mine)


def take_over(root: Path, number: int, task: int) -> bool:
    """Give the next waiting task's cells to this one, if it has what they ask for. First they are in both,
    for a moment; a cell has one owner all the same."""
    mine = read_manifest(path_of(root, number))
    giver = next((manifest for manifest in read_manifests(root) if suits(mine, manifest)), None)
    if giver is None:
        return False
    grown = with_cells(mine, task, giver.tasks[giver.submitted], giver.failed_before)
    write_manifest(root, grown)
    write_manifest(root, without_next(grown if giver.number == number else giver))
    return True


def with_cells(
    manifest: Manifest, task: int, cells: Sequence[str], failed_before: dict[str, int]
) -> Manifest:
    tasks = list(manifest.tasks)
    tasks[task] = (*tasks[task], *cells)
    known = {cell: failed_before[cell] for cell in cells if cell in failed_before}
    return replace(manifest, tasks=tuple(tasks), failed_before={**manifest.failed_before, **known})


def without_next(manifest: Manifest) -> Manifest:
    """The next waiting task has no cells left; it keeps its number, as those after it do."""
    tasks = list(manifest.tasks)
    tasks[manifest.submitted] = ()
    return replace(manifest, tasks=tuple(tasks), submitted=manifest.submitted + 1)
