"""Handing a job in. Where a cluster is full sbatch would wait for room, a second and then longer, for two
minutes in all; it is ended as it says so, since fewer tasks may fit, and what waits has other ways in."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from harness.errors import CannotAnswer
from harness.sweep.slurm.scheduler import NoAnswer, Refused, environment, last_line, not_here

TRIES_AGAIN = b"sleeping and retrying"
SUBMIT_SECONDS = 20.0


class Full(Refused):
    """The cluster takes no more jobs for now, or none so long."""


def submit(script: Path, cwd: Path, array: str, after: str | None = None) -> str:
    """Submit the tasks `array` of a script; the id of the new job. Raises as `submit_job`."""
    wait = [f"--dependency=afterany:{after}"] if after else []
    return submit_job(["sbatch", "--parsable", f"--array={array}", *wait, str(script)], cwd)


def submit_job(
    command: Sequence[str], cwd: Path | None = None, changed: Mapping[str, str] | None = None
) -> str:
    """The id of the job that `sbatch --parsable` makes.

    Raises Refused with sbatch's own words, Full where it would wait, NoAnswer when it says nothing in time:
    after these two only the queue tells whether the job is in it all the same.
    """
    with its_own_group(command, cwd, {**environment(), **(changed or {})}) as (process, out, err):
        printed, said, over = listen(out, err, time.monotonic() + SUBMIT_SECONDS)
        if not over:
            end(process)
            printed += out.read()  # it may have been faster
    job = printed.decode().strip().split(";")[0]
    if job.isdigit():
        return job
    if not over and TRIES_AGAIN not in said:
        raise NoAnswer(f"{command[0]} did not answer in {SUBMIT_SECONDS:.0f} s; try again later")
    why = last_line(said.decode(errors="replace")).removeprefix("sbatch: error: ") or "no job id"
    raise (Refused if over else Full)(f"sbatch: {why.removesuffix(f', {TRIES_AGAIN.decode()}')}")


@contextlib.contextmanager
def its_own_group(
    command: Sequence[str], cwd: Path | None, variables: Mapping[str, str]
) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes], IO[bytes]]]:
    """A process with its output and complaints. It has ended when this is left."""
    try:
        process = subprocess.Popen(
            command,
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(variables),
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CannotAnswer(not_here(command[0])) from error
    assert process.stdout is not None and process.stderr is not None
    with process:
        try:
            yield process, process.stdout, process.stderr
        except BaseException:
            end(process)
            raise


def listen(out: IO[bytes], err: IO[bytes], deadline: float) -> tuple[bytes, bytes, bool]:
    """What a process prints and complains of until it has closed both or says that it will try again; and
    whether it has closed both. `deadline` is of time.monotonic."""
    heard = {out.fileno(): b"", err.fileno(): b""}
    with selectors.DefaultSelector() as left:
        for number in heard:
            left.register(number, selectors.EVENT_READ)
        while left.get_map() and TRIES_AGAIN not in heard[err.fileno()]:
            ready = left.select(max(0.0, deadline - time.monotonic()))
            if not ready:
                break
            for key, _ in ready:
                part = os.read(key.fd, 65_536)
                heard[key.fd] += part
                if not part:
                    left.unregister(key.fd)
        return heard[out.fileno()], heard[err.fileno()], not left.get_map()


def end(process: subprocess.Popen[bytes]) -> None:
    """With all of its group, since on some clusters sbatch is a script of the site's own. That one may have
    left while what it started has not; until it is waited for, its number is nobody else's."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
