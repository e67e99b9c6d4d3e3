"""Why a cell went no further, where the cluster keeps accounts: asked of sacct when its files do not say and
squeue knows its job no more.

A reason to read, never a state: accounting calls a job that finished in its grace time TIMEOUT, and of one
that was queued again it tells the last execution alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import CannotAnswer
from harness.runs import Status, read_owner
from harness.sweep.ledger import CellState
from harness.sweep.slurm.manifest import Manifest, read_manifests
from harness.sweep.slurm.scheduler import call

SECONDS = 10.0
COLUMNS = ("JobID", "State", "ExitCode", "NodeList")
NO_EXIT, NO_NODE = "0:0", ("", "None assigned")
STILL_GOES = ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED")
ROW = re.compile(r"(\d+)_\[?(\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*)(?:%\d+)?\]?")

Task = tuple[str, int]
"""The id of an array's job and the number of its task."""


@dataclass(frozen=True)
class Ended:
    """How the last execution of a task ended, in the words of accounting."""

    task: str
    how: str

    def __str__(self) -> str:
        return f"job {self.task} ended, says sacct: {self.how}"


def explained(root: Path, states: Sequence[CellState]) -> list[CellState]:
    """The states; of cells that jobs of this sweep have left unfinished with a note of how the last of these
    ended, as far as sacct knows. It is asked once, and only if there are such cells."""
    manifests = read_manifests(root)
    left = {state.cell.run_id for state in states if manifests and is_unexplained(root, state)}
    jobs = jobs_of(left, manifests)
    notes = {run_id: str(ended) for run_id, ended in latest(ask(list(jobs)), jobs).items() if run_id in left}
    return [replace(state, note=notes.get(state.cell.run_id, state.note)) for state in states]


def is_unexplained(root: Path, state: CellState) -> bool:
    """Not what was trained outside of jobs last."""
    if state.note or state.status not in (Status.planned, Status.interrupted, Status.lost):
        return False
    owner = read_owner(root / state.cell.run_id)
    return owner is None or owner.job is not None


def jobs_of(cells: Set[str], manifests: Iterable[Manifest]) -> dict[str, Manifest]:
    """The jobs that were to train some of these cells, by id."""
    return {
        job: manifest
        for manifest in manifests
        if any(not cells.isdisjoint(task) for task in manifest.tasks[: manifest.submitted])
        for job in manifest.jobs
    }


def latest(said: Mapping[Task, str], jobs: Mapping[str, Manifest]) -> dict[str, Ended]:
    """How the last task of each cell ended, by run id."""
    return {
        run_id: Ended(f"{job}_{number}", how)
        for (job, number), how in sorted(said.items(), key=lambda one: int(one[0][0]))
        if job in jobs and number < len(jobs[job].tasks)
        for run_id in jobs[job].tasks[number]
    }


def ask(jobs: Sequence[str]) -> dict[Task, str]:
    """How each task of these jobs ended; nothing where there is no sacct, or no accounts, or no answer."""
    if not jobs:
        return {}
    words = ("--noheader", "--parsable2", "--allocations", f"--format={','.join(COLUMNS)}")
    try:
        done = call("sacct", *words, f"--jobs={','.join(jobs)}", seconds=SECONDS)
    except (CannotAnswer, OSError):
        return {}
    return parse(done.stdout) if done.returncode == 0 else {}


def parse(text: str) -> dict[Task, str]:
    ended = {}
    for line in text.splitlines():
        parts = line.strip().split("|")
        if len(parts) == len(COLUMNS) and not parts[1].startswith(STILL_GOES):
            job, *how = parts
            ended.update(dict.fromkeys(tasks_of(job), words(*how)))
    return ended


def tasks_of(job: str) -> list[Task]:
    """Of an array's row: `17_3`, or `17_[3,5-8]` for tasks that never began."""
    found = ROW.fullmatch(job)
    if found is None:
        return []
    ends = [[int(end) for end in part.split("-")] for part in found[2].split(",")]
    return [(found[1], number) for one in ends for number in range(one[0], one[-1] + 1)]


def words(state: str, exit_code: str, nodes: str) -> str:
    """e.g. `FAILED 1:0 on n3`; the exit code and, after a colon, the signal."""
    how = state if exit_code in ("", NO_EXIT) else f"{state} {exit_code}"
    return how if nodes in NO_NODE else f"{how} on {nodes}"
