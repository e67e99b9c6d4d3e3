"""A stand-in for training that owns its run as training does, and a queue that uses it.

python standin.py queue ROOT SLOTS SECONDS      work through ROOT/plan.jsonl
python standin.py train RUN SECONDS             take one run to its record, or stop when asked to
"""

from __future__ import annotations

import signal
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer
from harness.runs import RunDirectory, RunRecord, claim
from harness.sweep.local import Queue
from harness.sweep.plan import read_lines
from harness.sweep.slots import LauncherConfig, build_slots, own_cores

STARTS, REFUSALS = "starts.txt", "refusals.txt"
BLANK = {"str": "", "int": 0, "float": 0.0, "bool": False}


def blank_record(**known: Any) -> RunRecord:
    required = [field for field in fields(RunRecord) if field.default is MISSING]
    return RunRecord(**{**{field.name: BLANK.get(str(field.type)) for field in required}, **known})


def train(run: RunDirectory, seconds: float) -> int:
    asked: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    try:
        attempt = claim(run)
    except CannotAnswer:
        with (run.path / REFUSALS).open("a") as file:
            file.write("refused\n")
        return 1
    with (run.path / STARTS).open("a") as file:
        file.write(f"{attempt.number}\n")
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if asked:
            attempt.end()
            return 130
        time.sleep(0.02)
    record = blank_record(run_id=run.run_id, status="done", attempts=attempt.number, loss=1.0)
    attempt.finish(record)
    return 0


def queue(root: Path, slots: int, seconds: str) -> int:
    def command(run: Path) -> list[str]:
        return [sys.executable, __file__, "train", str(run), seconds]

    places = build_slots(LauncherConfig(slots=slots), own_cores())
    try:
        Queue(root, read_lines(root), places, False, command).run(lambda _: None)
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    verb, path, *rest = sys.argv[1:]
    if verb == "train":
        sys.exit(train(RunDirectory(Path(path)), float(rest[0])))
    sys.exit(queue(Path(path), int(rest[0]), rest[1]))
