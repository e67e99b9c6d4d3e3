"""Killing single cells of a sweep: marked with the evidence first, so that no queue starts them again, and
then cancelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from harness.runs import AlreadyFinished, RunDirectory, mark_killed, read_owner
from harness.sweep.stop import Worker, ask, trainer, wait


class Ending(Enum):
    """What became of a cell that was to be killed."""

    stopped = "stopped"
    idle = "idle"
    stopping = "stopping"
    finished = "finished"


SAID = {
    Ending.stopped: "killed",
    Ending.idle: "killed; nothing was training it",
    Ending.stopping: "killed; its process stops at the next row it logs",
    Ending.finished: "had finished meanwhile",
}


@dataclass(frozen=True)
class Death:
    """`evidence` is what killed.json will say beside the reason."""

    reason: str
    evidence: dict[str, Any]


def kill(root: Path, deaths: Mapping[str, Death], wait_seconds: float) -> dict[str, Ending]:
    """Mark every run id of `deaths`, and ask what trains it here to stop.

    Whatever cannot be asked ends the run by itself: it finds the mark when it next logs a row.
    """
    found: dict[str, Ending] = {}
    asked: dict[str, Worker] = {}
    for run_id, death in deaths.items():
        run = RunDirectory(root / run_id)
        try:
            mark_killed(run, death.reason, death.evidence)
        except AlreadyFinished:
            found[run_id] = Ending.finished
            continue
        worker = trainer(run.path)
        found[run_id] = Ending.idle if worker is None else Ending.stopping
        if worker is not None and cancel(root / run_id, worker):
            asked[run_id] = worker
    wait(list(asked.values()), wait_seconds)
    return found | {run_id: Ending.stopped for run_id, worker in asked.items() if not worker.is_alive()}


def cancel(run: Path, worker: Worker) -> bool:
    """Ask the process of one cell to stop; whether that was done. The task of a batch job is left to find the
    mark: it has other cells to go on with, and scancel would end them too."""
    owner = read_owner(run)
    if owner is None or owner.job is not None or not worker.process.is_here:
        return False
    return ask(worker)
