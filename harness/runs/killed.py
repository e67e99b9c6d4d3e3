"""Giving up on a run: a mark in its directory that says why, which every attempt on every machine heeds.

An attempt under way stops at the next row it logs, and none begins. The mark is no record: no fit takes a
killed run for a finished one.
"""

from __future__ import annotations

from typing import Any

from harness.errors import CannotAnswer
from harness.runs.attempt import LOCK, AlreadyFinished
from harness.runs.directory import RunDirectory
from harness.runs.files import KILLED, RECORD, one_at_a_time, read_json, write_json


def mark_killed(run: RunDirectory, reason: str, evidence: dict[str, Any]) -> None:
    """Raises AlreadyFinished when the run has its record by now, CannotAnswer when it was not begun."""
    if not run.path.is_dir():
        raise CannotAnswer(f"{run.path} has not begun; there is nothing to kill")
    with one_at_a_time(run.path, LOCK):
        if (run.path / RECORD).exists():
            raise AlreadyFinished(f"{run.path} is finished")
        write_json(run.path / KILLED, {"reason": reason, **evidence})


def killed_reason(run: RunDirectory) -> str:
    """Raises WrongInput when the mark is damaged."""
    return str(read_json(run.path / KILLED)["reason"])


def revive(run: RunDirectory) -> bool:
    """Let a killed run go on from its checkpoint; whether it was killed. What was said against it stays."""
    with one_at_a_time(run.path, LOCK):
        if not (run.path / KILLED).exists():
            return False
        number = 1 + len(list(run.path.glob("revived-*.json")))
        (run.path / KILLED).rename(run.path / f"revived-{number}.json")
    return True
