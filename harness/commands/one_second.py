"""Cells that take one second and train nothing, for `harness bench launch`: owned, fenced and recorded as
those that train."""

from __future__ import annotations

import sys
import time
from dataclasses import MISSING, fields
from typing import Any

from harness.commands import task
from harness.runs import RunDirectory, RunRecord, claim
from harness.sweep.slurm.task import is_gone

COMMAND = (sys.executable, "-m", "harness.commands.one_second")
BLANK = {"str": "", "int": 0, "float": 0.0, "bool": False}


def train(run: RunDirectory) -> None:
    attempt = claim(run, is_gone)
    time.sleep(1.0)
    attempt.finish(blank_record(run.run_id))


def blank_record(run_id: str) -> RunRecord:
    required = [field for field in fields(RunRecord) if field.default is MISSING]
    blank: dict[str, Any] = {field.name: BLANK.get(str(field.type)) for field in required}
    return RunRecord(**blank | {"run_id": run_id, "status": "done"})


if __name__ == "__main__":
    task.FLAG.listen()
    sys.exit(task.main(sys.argv[1:], COMMAND, train))
