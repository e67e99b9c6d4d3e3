"""What is asked of Slurm's own commands; nothing else of the harness calls them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from harness.errors import CannotAnswer
from harness.runs import JobAttempt

TIMEOUT_SECONDS = 60.0
FORMAT = "%j|%F|%K|%T|%r"
UNKNOWN_JOB = "Invalid job id"


class NoAnswer(CannotAnswer):
    """A command of Slurm's took too long; what it was to do may have happened."""


class Refused(CannotAnswer):
    """The scheduler takes no more jobs, or not this one; the message is its own."""


@dataclass(frozen=True)
class Task:
    """A task that the scheduler holds: pending, running or ending. `reason` says why it is not running."""

    name: str
    job: str
    index: int
    state: str
    reason: str

    @property
    def id(self) -> str:
        return f"{self.job}_{self.index}"


@dataclass(frozen=True)
class Job:
    """A job that is no array, which the scheduler holds. `reason` says why it is not running."""

    name: str
    id: str
    state: str
    reason: str


def is_there() -> bool:
    return shutil.which("squeue") is not None


def call(*command: str, seconds: float = TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
    """Raises CannotAnswer when Slurm's commands are not there or do not answer."""
    try:
        return subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=seconds, env=environment()
        )
    except FileNotFoundError as error:
        raise CannotAnswer(not_here(command[0])) from error
    except subprocess.TimeoutExpired as error:
        raise NoAnswer(f"{command[0]} did not answer in {seconds:.0f} s; try again later") from error


def not_here(command: str) -> str:
    return f"{command} is not here; launcher=slurm needs a login node of a cluster"


def environment() -> dict[str, str]:
    """Without the variables that would override what a script says, or that an enclosing job has left."""
    mine = {k: v for k, v in os.environ.items() if not k.startswith(("SBATCH_", "SLURM_", "SQUEUE_"))}
    return mine | {k: os.environ[k] for k in ("SLURM_CONF",) if k in os.environ}


def held_tasks(names: Collection[str]) -> list[Task]:
    """The tasks of the arrays of these names that have not ended. Raises CannotAnswer without an answer."""
    if not names:
        return []
    done = call("squeue", "--noheader", "--array", f"--format={FORMAT}", f"--name={','.join(names)}")
    if done.returncode != 0:
        raise CannotAnswer(f"squeue does not answer: {last_line(done.stderr)}; nothing was changed")
    return [task for line in done.stdout.splitlines() if (task := parse_task(line)) is not None]


def parse_task(line: str) -> Task | None:
    parts = line.strip().split("|", 4)
    if len(parts) != 5 or not parts[2].isdigit():
        return None
    name, job, index, state, reason = parts
    return Task(name, job, int(index), state, reason)


def held_jobs(names: Collection[str]) -> list[Job]:
    """The jobs of these names that have not ended. Raises CannotAnswer without an answer."""
    done = call("squeue", "--noheader", "--format=%j|%A|%T|%r", f"--name={','.join(names)}")
    if done.returncode != 0:
        raise CannotAnswer(f"squeue does not answer: {last_line(done.stderr)}")
    return [Job(*line.strip().split("|", 3)) for line in done.stdout.splitlines() if line.count("|") >= 3]


def longest_array() -> int:
    """How many tasks an array may have here (MaxArraySize)."""
    done = call("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", done.stdout, re.MULTILINE)
    if found is None:
        raise CannotAnswer(f"scontrol does not answer: {last_line(done.stderr)}; nothing was submitted")
    return max(1, int(found[1]))


def cancel(jobs: Sequence[str]) -> str:
    """What scancel had to say against it; empty when nothing."""
    return last_line(call("scancel", *jobs).stderr) if jobs else ""


def is_over(attempt: JobAttempt) -> bool:
    """Whether the scheduler knows that this execution has ended; False when it does not answer."""
    try:
        done = call("scontrol", "--oneliner", "show", "job", attempt.job)
    except CannotAnswer:
        return False
    if done.returncode != 0:
        return UNKNOWN_JOB in done.stderr
    state = re.search(r" JobState=(\S+)", done.stdout)
    restarts = re.search(r" Restarts=(\d+)", done.stdout)
    if state is None or restarts is None:
        return False
    return state[1] not in ("RUNNING", "SUSPENDED", "COMPLETING") or int(restarts[1]) != attempt.restarts


def last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
