"""One task of an array: its cells one after another in one process, until all are finished or it must stop.

What it returns is what the batch script acts on. `OVER` and `FAILED` end the task; after anything else, a
death included, the script requeues it, and it goes on with what is not finished.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

from harness.errors import CannotAnswer, HarnessError, in_one_line
from harness.runs import (
    FAILURE,
    FINISHED,
    Attempt,
    Killed,
    Owner,
    RunDirectory,
    Superseded,
    read_owner,
    this_job,
    this_process,
)
from harness.signals import SHELL_SIGNAL, SIGNALS, StopFlag, death
from harness.sweep.plan import create_run, planned_line
from harness.sweep.slurm.manifest import Manifest, ends_of, failures


class Exit(IntEnum):
    """Of a task: all is done, a cell has failed for good, it was asked to stop and has saved."""

    OVER = 0
    FAILED = 64
    STOPPED = 75


@dataclass(frozen=True)
class Stumbled:
    """A cell has just failed. What the failure has left in the process, an exhausted or broken GPU say, must
    not reach the next one: a new process goes on."""

    run_id: str


ASKED_TO_STOP = {Exit.STOPPED, *(SHELL_SIGNAL + number for number in SIGNALS)}
"""How a process ends that was asked to stop, the latter before it listened."""

Train = Callable[[RunDirectory], object]


def work(
    root: Path, manifest: Manifest, number: int, train: Train, flag: StopFlag, tried: Mapping[str, int]
) -> Exit | Stumbled:
    """Train the cells of task `number`. `tried` says how often each has failed since the task began: a full
    disk keeps no account of it."""
    if number >= len(manifest.tasks):
        return Exit.OVER  # submitted by one who was killed before he noted it, and planned anew since
    blame(root, manifest, number)
    for run_id in in_order(root, manifest.tasks[number]):
        if flag.signal is not None:
            return Exit.STOPPED
        if is_finished(root / run_id) or gives_up(root / run_id, manifest, tried):
            continue
        try:
            train(prepared(root, run_id))
        except KeyboardInterrupt:
            return Exit.STOPPED
        except Killed as error:
            print(error, file=sys.stderr)
        except Superseded as error:
            print(error, file=sys.stderr)
            if is_of_this_task(read_owner(root / run_id)):
                return Exit.OVER  # a later execution goes on with the other cells
        except Exception as error:
            if not isinstance(error, HarnessError):
                traceback.print_exception(error)
            print(f"{run_id}: {in_one_line(error)}", file=sys.stderr, flush=True)
            if isinstance(error, CannotAnswer) and not (root / run_id / FAILURE).exists():
                continue  # somebody else trains it
            return Stumbled(run_id)
    failed = [run_id for run_id in manifest.tasks[number] if gives_up(root / run_id, manifest, tried)]
    return Exit.FAILED if failed else Exit.OVER


def blame(root: Path, manifest: Manifest, number: int) -> None:
    """A cell whose process died under an earlier execution of this task, of memory or a fault, has failed.
    What a node, a preemption or a time limit ended has not: there the script did not outlive the process."""
    ends = executions(ends_of(root, manifest.number, str(number)))
    for run_id in manifest.tasks[number]:
        owner = read_owner(root / run_id)
        if owner is None or owner.job is None or owner.ended or not is_of_this_task(owner):
            continue
        if (status := ends.get(owner.job.restarts, Exit.STOPPED)) not in ASKED_TO_STOP:
            run = RunDirectory(root / run_id)
            Attempt(run, owner.token, owner.number, owner.failures).fail(death(status))


def executions(ends: Path) -> dict[int, int]:
    """The exit status of each execution that was requeued, by how often the task was started before it."""
    try:
        rows = [line.split() for line in ends.read_text().splitlines()]
    except OSError:
        return {}
    return {int(row[0]): int(row[1]) for row in rows if len(row) == 2 and all(map(str.isdigit, row))}


def is_of_this_task(owner: Owner | None) -> bool:
    mine = this_job()
    return mine is not None and owner is not None and owner.job is not None and owner.job.job == mine.job


def in_order(root: Path, cells: Sequence[str]) -> list[str]:
    """As planned, but what failed or vanished before comes after what did not: it may be its own doing."""
    return sorted(cells, key=lambda run_id: troubles(root / run_id))


def troubles(run: Path) -> int:
    owner = read_owner(run)
    vanished = owner is not None and not owner.ended
    return failures(run) + vanished


def prepared(root: Path, run_id: str) -> RunDirectory:
    line = planned_line(root, run_id)
    return create_run(root, line) if line else RunDirectory(root / run_id)


def is_finished(run: Path) -> bool:
    try:
        return RunDirectory(run).status() in FINISHED
    except Exception:  # damaged: training says so
        return False


def gives_up(run: Path, manifest: Manifest, tried: Mapping[str, int]) -> bool:
    if is_finished(run):
        return False
    return not manifest.may_try(run) or tried.get(run.name, 0) >= manifest.allowed


def is_gone(owner: Owner) -> bool:
    """Whether an owner that seems to live is over: this process failed before, or its job has ended."""
    if owner.process == this_process():
        return True
    from harness.sweep.slurm.scheduler import is_over

    return owner.job is not None and is_over(owner.job)
