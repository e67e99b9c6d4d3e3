"""Where every planned cell stands: planned minus found, from the files of its sweep alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import WrongInput
from harness.runs import (
    FAILURE,
    FINISHED,
    JobAttempt,
    RunDirectory,
    RunRecord,
    Status,
    killed_reason,
    read_json,
    read_owner,
)
from harness.sweep.plan import PlannedCell
from harness.sweep.queues import queued_cells
from harness.sweep.slurm.jobs import NO_JOBS, Jobs
from harness.sweep.units import ready_trunks, shared_tokens, units

ORDINARY = ("", "None", "Priority", "Resources", "BeginTime", "Dependency", "JobArrayTaskLimit")
"""Reasons of a job's waiting that pass by themselves."""

WAITING = (Status.planned, Status.interrupted, Status.lost)


@dataclass(frozen=True)
class CellState:
    """One cell's status and how far it got. `tokens_per_second` is the last one logged, `interruptions` how
    often it was stopped, preempted or lost; `code_changed` says that other code trained it than was there
    when it was planned, `job` is the task of a batch job that trains it or will."""

    cell: PlannedCell
    status: Status
    tokens: int = 0
    loss: float | None = None
    tokens_per_second: float | None = None
    note: str = ""
    interruptions: int = 0
    code_changed: bool = False
    shared_tokens: int = 0
    job: str = ""

    @property
    def finished(self) -> bool:
        return self.status in FINISHED


def survey(root: Path, cells: Iterable[PlannedCell], jobs: Jobs = NO_JOBS) -> list[CellState]:
    """The state of every cell; one listing of the folder tells which have not begun. `jobs` are the cells
    that a batch system holds."""
    begun, queued = names_in(root), queued_cells(root)
    states = [
        look(RunDirectory(root / cell.run_id), cell, queued, jobs)
        if cell.run_id in begun
        else CellState(cell, Status.queued if cell.run_id in queued else Status.planned)
        for cell in cells
    ]
    return [held(state, root, jobs) for state in states] if jobs.held else states


def held(state: CellState, root: Path, jobs: Jobs) -> CellState:
    """The state as the batch system knows more of it."""
    if state.finished or state.cell.run_id not in jobs.held:
        return state
    task = jobs.task_for(root / state.cell.run_id, failed=state.status is Status.failed)
    if task is None:
        return state
    if state.status is Status.running:
        return replace(state, job=task.id)
    if state.status in (*WAITING, Status.queued, Status.failed):
        note = f"failed before: {state.note}" if state.status is Status.failed else ""
        if task.reason not in ORDINARY:
            note = f"job {task.id} {task.state.lower()}: {task.reason}"
        return replace(state, status=Status.queued, job=task.id, note=note)
    return state


def awaited(state: CellState, jobs: Jobs) -> CellState:
    """The state as a person wants to know it: queued, if the tasks that Slurm holds will see to it. Whoever
    is free to train the cell before that may."""
    if state.status in WAITING and state.cell.run_id in jobs.waiting:
        return replace(state, status=Status.queued)
    return state


def names_in(root: Path) -> set[str]:
    try:
        return {path.name for path in root.iterdir()}
    except OSError:
        return set()


def look(
    run: RunDirectory, cell: PlannedCell, queued: Collection[str] = (), jobs: Jobs = NO_JOBS
) -> CellState:
    """The state of one run; a damaged directory is said so, never raised."""
    try:
        if (record := run.record_if_any()) is not None:
            return of_record(cell, record)
        status = run.status()
        if status is Status.running and jobs.submitted and jobs.is_over(job_of(run)):
            status = Status.lost
        note = note_of(run, status)
    except (WrongInput, KeyError, TypeError, ValueError) as error:
        return CellState(cell, Status.damaged, note=str(error))
    last = run.last_metric() or {}
    return CellState(
        cell,
        Status.queued if status in WAITING and cell.run_id in queued else status,
        last.get("tokens", 0),
        last.get("loss"),
        last.get("tokens_per_second"),
        note,
        interruptions(run, status),
    )


def note_of(run: RunDirectory, status: Status) -> str:
    """Why it failed or was killed. Raises WrongInput or KeyError when the file that says so is damaged."""
    if status is Status.killed:
        return killed_reason(run)
    return str(read_json(run.path / FAILURE)["reason"]) if status is Status.failed else ""


def job_of(run: RunDirectory) -> JobAttempt | None:
    owner = read_owner(run.path)
    return owner.job if owner else None


def of_record(cell: PlannedCell, record: RunRecord) -> CellState:
    return CellState(
        cell,
        Status(record.status),
        record.tokens,
        record.loss,
        record.tokens_per_second,
        record.reason,
        record.interruptions,
        record.code_changed,
        record.shared_tokens,
    )


def interruptions(run: RunDirectory, status: Status) -> int:
    """Of a run without a record: its attempts but for those that failed and the one that goes on."""
    owner = read_owner(run.path)
    if owner is None:
        return 0
    ended_otherwise = status in (Status.running, Status.failed)
    return max(0, owner.number - owner.failures - ended_otherwise)


def sharing(root: Path, states: Sequence[CellState]) -> dict[str, int]:
    """The tokens that each cell took over from a shorter one of its trunk, or will if it is trained."""
    left = [state.cell for state in states if not state.finished]
    ahead = shared_tokens(units(left), ready_trunks(root, left))
    return {s.cell.run_id: s.shared_tokens if s.finished else ahead[s.cell.run_id] for s in states}


def counts(states: Sequence[CellState]) -> dict[str, int]:
    """How many cells have each status that occurs, in the order of a cell's life."""
    found = Counter(state.status for state in states)
    return {status.value: found[status] for status in Status if found[status]}
