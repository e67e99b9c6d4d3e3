"""Who is working through a sweep: each queue leaves a file in the sweep's folder while it lives.

runs/<sweep>/.queues/<host>-<pid>.json names the process and its cells, so that status can tell queued cells
from planned ones, and a plan that somebody waits for is not replaced.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import WrongInput
from harness.runs import Process, one_at_a_time, parse_process, this_process, write_json

QUEUES = ".queues"
STARTING, LOCK = ".starting", ".start"
BEAT_SECONDS = 60.0


@dataclass(frozen=True)
class LivingQueue:
    process: Process
    cells: tuple[str, ...]


@contextlib.contextmanager
def registered(root: Path, cells: Sequence[str]) -> Iterator[Callable[[Sequence[str]], None]]:
    """Say that this process works through `cells`. Yields what to call now and then, as a sign of life, with
    those that are left."""
    mine = this_process()
    path = root / QUEUES / f"{mine.host}-{mine.pid}.json"
    said, when = len(cells), time.monotonic()
    write_json(path, {**asdict(mine), "cells": list(cells)})

    def beat(left: Sequence[str]) -> None:
        nonlocal said, when
        if len(left) != said or time.monotonic() - when > BEAT_SECONDS:
            said, when = len(left), time.monotonic()
            with contextlib.suppress(WrongInput):  # a full disk
                write_json(path, {**asdict(mine), "cells": list(left)}, durable=False)

    try:
        yield beat
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def living_queues(root: Path) -> list[LivingQueue]:
    """The queues of a sweep's folder that have not ended."""
    found = (read_queue(path) for path in sorted((root / QUEUES).glob("[!.]*.json")))
    return [queue for queue in found if queue is not None]


def read_queue(path: Path) -> LivingQueue | None:
    """None when it is gone, garbage, or its process dead."""
    try:
        value = json.loads(path.read_text())
        last_sign = path.stat().st_mtime
    except (OSError, ValueError):
        return None
    process = parse_process(value)
    if process is None or not process.is_alive(last_sign):
        return None
    return LivingQueue(process, tuple(value.get("cells", ())))


def reserve(run: Path) -> bool:
    """Whether this process may start the run: no other living queue is about to.

    Ownership is decided when training begins, seconds later; this spares two queues of the same order from
    starting every cell twice for one of the two to be turned away.
    """
    mine = this_process()
    with one_at_a_time(run, LOCK):
        other = read_queue(run / STARTING)
        if other is not None and other.process != mine:
            return False
        write_json(run / STARTING, asdict(mine))
    return True


def release(run: Path) -> None:
    """The start is over, however it ended. Only for the process that reserved it."""
    with contextlib.suppress(OSError):
        (run / STARTING).unlink()


def queued_cells(root: Path) -> set[str]:
    return {cell for queue in living_queues(root) for cell in queue.cells}
