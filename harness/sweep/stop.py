"""Stopping what works through a sweep on this machine: SIGTERM, so that every run saves first."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.runs import Process, read_owner
from harness.sweep.ledger import names_in
from harness.sweep.queues import living_queues

POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Worker:
    """A process of a sweep; `run_id` is empty for a queue."""

    process: Process
    run_id: str = ""

    def is_alive(self) -> bool:
        return self.process.is_here and self.process.is_alive(last_sign=0.0)


@dataclass(frozen=True)
class Stopped:
    """What was asked to stop and did, what did not in time, and what runs on other machines."""

    stopped: list[Worker]
    left: list[Worker]
    elsewhere: list[Worker]


def workers(root: Path) -> list[Worker]:
    """Queues first, so that none starts another cell when one ends."""
    queues = [Worker(queue.process) for queue in living_queues(root)]
    return queues + [
        worker for name in sorted(names_in(root)) if (worker := trainer(root / name)) is not None
    ]


def trainer(run: Path) -> Worker | None:
    """Who trains this run now."""
    owner = read_owner(run)
    return Worker(owner.process, run.name) if owner is not None and owner.is_alive(run) else None


def stop(root: Path, wait_seconds: float) -> Stopped:
    """Ask every worker of a sweep to save and stop, and wait for it."""
    found = workers(root)
    here = [worker for worker in found if worker.process.is_here]
    asked = [worker for worker in here if ask(worker)]
    wait(asked, wait_seconds)
    return Stopped(
        stopped=[worker for worker in asked if not worker.is_alive()],
        left=[worker for worker in here if worker.is_alive()],
        elsewhere=[worker for worker in found if not worker.process.is_here],
    )


def ask(worker: Worker) -> bool:
    """Whether the signal could be sent. A pid that another process has by now is left alone."""
    try:
        if worker.is_alive():
            os.kill(worker.process.pid, signal.SIGTERM)
    except OSError:
        return False
    return True


def wait(asked: Sequence[Worker], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(worker.is_alive() for worker in asked):
        time.sleep(POLL_SECONDS)
