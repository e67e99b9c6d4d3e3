"""A queue that outlives the terminal it was started from."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from harness.errors import CannotAnswer
from harness.sweep.queues import living_queues

QUEUE_LOG = "queue.log"
BEGIN_SECONDS = 120.0
POLL_SECONDS = 0.1


def detach(root: Path, words: Sequence[str]) -> int | None:
    """Run `harness sweep <words>` in a session of its own; return its pid once it is at work, None when it is
    done by then.

    What it prints goes to <root>/queue.log. Raises CannotAnswer with its last line when it failed before.
    """
    path = root / QUEUE_LOG
    with path.open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "harness", "sweep", *words, "detach=false"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    deadline = time.monotonic() + BEGIN_SECONDS
    while process.poll() is None and not is_at_work(root, process.pid) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
    if process.returncode:
        raise CannotAnswer(f"the sweep ended at once: {last_line(path)} (all of it in {path})")
    return None if process.returncode == 0 else process.pid


def is_at_work(root: Path, pid: int) -> bool:
    return any(queue.process.is_here and queue.process.pid == pid for queue in living_queues(root))


def last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return next((line for line in reversed(lines) if line.strip()), "it said nothing")
