"""Which process owns a run, and whether it still lives."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.runs.files import ATTEMPT, METRICS

FOREIGN_SILENCE_SECONDS = 900.0
"""An owner on another host that has written nothing for so long is taken for dead. Should it only have
been slow, it finds itself superseded at its next write and stops."""


@dataclass(frozen=True)
class Process:
    """A process, told from a later one with the same pid by when it started."""

    host: str
    pid: int
    process_start: str | None

    @property
    def is_here(self) -> bool:
        return self.host == this_host()

    def is_alive(self, last_sign: float) -> bool:
        """On this host by its pid; on another by when it last wrote: `last_sign`, seconds since the epoch."""
        if not self.is_here:
            return time.time() - last_sign < FOREIGN_SILENCE_SECONDS
        found = process_start(self.pid)
        return found is not None and found == self.process_start


def this_host() -> str:
    """As socket.gethostname says, whose import every task of an array would pay for."""
    return os.uname().nodename


def this_process() -> Process:
    return Process(this_host(), os.getpid(), process_start(os.getpid()))


def parse_process(value: Any) -> Process | None:
    if not isinstance(value, dict) or not isinstance(value.get("pid"), int):
        return None
    return Process(str(value.get("host")), value["pid"], value.get("process_start"))


@dataclass(frozen=True)
class JobAttempt:
    """One execution of a Slurm job: `job` is its id, for an array's task ARRAY_TASK; the scheduler has
    requeued it `restarts` times before."""

    job: str
    restarts: int
    node: str


def this_job() -> JobAttempt | None:
    """None outside of Slurm."""
    get = os.environ.get
    if (job := get("SLURM_JOB_ID")) is None:
        return None
    if (array := get("SLURM_ARRAY_JOB_ID")) is not None:
        job = f"{array}_{get('SLURM_ARRAY_TASK_ID')}"
    restarts = get("SLURM_RESTART_COUNT", "0")
    return JobAttempt(job, int(restarts) if restarts.isdigit() else 0, get("SLURMD_NODENAME", ""))


def parse_job(value: Any) -> JobAttempt | None:
    try:
        return JobAttempt(**value)
    except TypeError:
        return None


@dataclass(frozen=True)
class Owner:
    """attempt.json: the last attempt at a run. `number` counts attempts from 1, `failures` those before
    this one that left a failure, `ended` says that this one stopped of its own accord, `job` by what batch
    job it was made."""

    process: Process
    token: str
    number: int
    failures: int = 0
    ended: bool = False
    job: JobAttempt | None = None

    def is_alive(self, run: Path) -> bool:
        return not self.ended and self.process.is_alive(last_sign_of_life(run))


def read_owner(run: Path) -> Owner | None:
    """None where no attempt was made, or its file is garbage."""
    try:
        value = json.loads((run / ATTEMPT).read_text())
    except (OSError, ValueError):
        return None
    process = parse_process(value)
    if process is None or "token" not in value or not isinstance(value.get("number"), int):
        return None
    failures = value.get("failures")  # absent from runs of the first version
    counted = failures if isinstance(failures, int) else 0
    job = parse_job(value.get("slurm"))
    return Owner(process, value["token"], value["number"], counted, bool(value.get("ended")), job)


def last_sign_of_life(run: Path) -> float:
    """Seconds since the epoch of the newest write of an attempt."""
    files = (run / ATTEMPT, run / METRICS)
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def process_start(pid: int) -> str | None:
    """An identifier of a living process that a reused pid does not share; None when it is gone.

    Where there is no /proc a living process is only known by its pid.
    """
    if not Path("/proc/self/stat").exists():
        return "alive" if signal_reaches(pid) else None
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    after_name = stat.rsplit(")", 1)[1].split()
    return None if after_name[0] == "Z" else after_name[19]


def signal_reaches(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
