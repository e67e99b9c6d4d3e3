"""The right to write one run directory: one owner at a time, and one that was superseded notices."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from harness.errors import CannotAnswer, HarnessError, WrongInput
from harness.runs.directory import RunDirectory
from harness.runs.files import (
    ATTEMPT,
    FAILURE,
    KILLED,
    METRICS,
    RECORD,
    content_hash,
    one_at_a_time,
    random_name,
    write_json,
)
from harness.runs.owner import JobAttempt, Owner, read_owner, this_job, this_process
from harness.runs.record import RunRecord

LOCK = ".claim"


class Superseded(HarnessError):
    """Another attempt took over this run; this one must write no more."""

    exit_code = 1


class Killed(HarnessError):
    """This run was given up on; see harness.runs.killed."""

    exit_code = 1


class AlreadyFinished(CannotAnswer):
    """The run has its record: there is nothing left to own."""


@dataclass(frozen=True)
class Attempt:
    """A later attempt supersedes this one; `check` notices. `failures` counts earlier ones that failed."""

    run: RunDirectory
    token: str
    number: int
    failures: int = 0

    def check(self) -> None:
        """Raises Superseded when another attempt has taken over."""
        owner = read_owner(self.run.path)
        if owner is None or owner.token != self.token:
            raise Superseded(f"{self.run.path} was taken over by another attempt; this one stops")

    def check_wanted(self) -> None:
        """Raises Killed when the run was given up on, from whatever machine."""
        if (self.run.path / KILLED).exists():
            raise Killed(f"{self.run.path} was killed; {KILLED} there says why")

    def append_metrics(self, rows: list[dict[str, Any]]) -> None:
        """Append whole lines in one write.

        Raises WrongInput when the disk is full, Superseded when the run has another owner by now,
        Killed when it was given up on.
        """
        self.check()
        self.check_wanted()
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in rows)
        path = self.run.path / METRICS
        try:
            with path.open("ab+") as file:
                file.write(torn_line_end(file) + text.encode())
        except OSError as error:
            raise WrongInput(
                f"cannot write {path}: {error.strerror}; free some space and start again"
            ) from error

    def sync_metrics(self) -> None:
        """Put the rows on the disk before a checkpoint says that they need not be written again."""
        path = self.run.path / METRICS
        if path.exists():
            with path.open("rb") as file:
                os.fsync(file.fileno())

    def finish(self, record: RunRecord) -> None:
        """Write the record, unless another attempt took over or the run was killed: nobody can do that
        between the check and the write."""
        with one_at_a_time(self.run.path, LOCK):
            self.check()
            self.check_wanted()
            body = asdict(record)
            write_json(self.run.path / RECORD, {**body, "hash": content_hash(body)})
        (self.run.path / FAILURE).unlink(missing_ok=True)
        self.end()

    def fail(self, reason: str) -> None:
        """Note why, as far as that can still be written: the failure itself must reach the user."""
        with contextlib.suppress(HarnessError):
            self.check()
            if (self.run.path / KILLED).exists():
                self.end()
                return
            write_json(self.run.path / FAILURE, {"reason": reason, "attempt": self.number})
            self.end()

    def end(self) -> None:
        """Say that this attempt is over, so that another host need not guess."""
        owner = read_owner(self.run.path)
        if owner is not None and owner.token == self.token:
            write_owner(self.run, owner, ended=True)


def write_owner(run: RunDirectory, owner: Owner, *, ended: bool) -> None:
    """Not flushed: an attempt does not outlive its machine's power, and a run whose owner was forgotten
    counts as lost, or as planned."""
    mine: dict[str, Any] = {"token": owner.token, "number": owner.number, "failures": owner.failures}
    mine |= asdict(owner.process)
    mine |= {"slurm": asdict(owner.job)} if owner.job else {}
    write_json(run.path / ATTEMPT, {**mine, "ended": True} if ended else mine, durable=False)


def torn_line_end(file: Any) -> bytes:
    """A newline when the last line was cut short by a crash, else nothing."""
    if file.seek(0, os.SEEK_END) == 0:
        return b""
    file.seek(-1, os.SEEK_END)
    return b"" if file.read(1) == b"\n" else b"\n"


IsGone = Callable[[Owner], bool]
"""Whether the caller knows that an owner which seems to live is over."""


def never(owner: Owner) -> bool:
    return False


def claim(run: RunDirectory, is_gone: IsGone = never) -> Attempt:
    """Become the owner of `run`. Raises CannotAnswer when a living process owns it or it was killed,
    AlreadyFinished when it has its record.

    Two claims at once are decided by a lock that is held only while the owner's file is replaced. Every
    later write of an attempt checks its token, so one that was superseded stops by itself. An owner of the
    same batch job from before it was requeued is superseded: its node may be cut off and not know.
    """
    with one_at_a_time(run.path, LOCK):
        if (run.path / RECORD).exists():
            raise AlreadyFinished(f"{run.path} is finished")
        if (run.path / KILLED).exists():
            raise CannotAnswer(f"{run.path} was killed; `harness sweep retry_killed=true` goes on with it")
        owner, job = read_owner(run.path), this_job()
        if owner is not None and owner.is_alive(run.path) and not gives_way(owner, job, is_gone):
            raise CannotAnswer(
                f"{run.path} is being trained by process {owner.process.pid} on {owner.process.host}; "
                "wait for it or stop it"
            )
        failures = (owner.failures if owner else 0) + (run.path / FAILURE).exists()
        number = owner.number + 1 if owner else 1
        token = random_name()
        write_owner(run, Owner(this_process(), token, number, failures, job=job), ended=False)
        (run.path / FAILURE).unlink(missing_ok=True)
    return Attempt(run, token, number, failures)


def gives_way(owner: Owner, job: JobAttempt | None, is_gone: IsGone) -> bool:
    """Whether an owner that seems to live is an execution that is over."""
    if owner.job is not None and job is not None and job.job == owner.job.job:
        return job.restarts > owner.job.restarts
    return is_gone(owner)
