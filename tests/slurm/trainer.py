"""A stand-in for training under Slurm: it owns its run, saves, resumes and stops as training does.

Its result follows from its run's name and from having taken every step once, in order. standin.json in the
sweep's folder says how many steps, how long one takes, which cells fail, and after which step one is held
until the file says otherwise.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import sys
import time
from dataclasses import MISSING, fields
from pathlib import Path

from harness.signals import StopFlag

FLAG = StopFlag()
FLAG.listen()

from harness.commands import task  # noqa: E402
from harness.errors import HarnessError  # noqa: E402
from harness.runs import RunDirectory, RunRecord, Superseded, claim, write_json  # noqa: E402
from harness.sweep.slurm.task import is_gone  # noqa: E402

BLANK = {"str": "", "int": 0, "float": 0.0, "bool": False}
BEHAVIOUR = "standin.json"


def train(run: RunDirectory) -> None:
    told = released(run, 0)
    if FLAG.signal is not None:
        raise KeyboardInterrupt
    attempt = claim(run, is_gone)
    if run.run_id in told.get("kill", ()) and attempt.number <= 2:
        sys.exit(99)  # as one that dies without a word
    if run.run_id in told.get("out_of_memory", ()):
        os.kill(os.getpid(), signal.SIGKILL)
    if run.run_id in told.get("fail", ()):
        attempt.fail("planted")
        raise RuntimeError("planted")
    saved = run.checkpoints / "state.json"
    state = json.loads(saved.read_text()) if saved.exists() else {"step": 0, "value": run.run_id}
    try:
        for step in range(state["step"] + 1, told["steps"] + 1):
            time.sleep(released(run, step - 1)["seconds"])
            state = {"step": step, "value": hashlib.sha256(f"{state['value']} {step}".encode()).hexdigest()}
            attempt.append_metrics([{"kind": "train", "tokens": step, "loss": 1.0, **state}])
            if FLAG.signal is not None or step % 5 == 0:
                attempt.check()
                write_json(saved, state, durable=False)
            if FLAG.signal is not None:
                attempt.end()
                raise KeyboardInterrupt
    except Superseded:
        (run.path / "superseded.txt").write_text(str(attempt.number))
        raise
    except HarnessError as error:
        attempt.fail(str(error))
        raise
    attempt.finish(blank_record(run_id=run.run_id, attempts=attempt.number, loss=loss(state["value"])))


def released(run: RunDirectory, step: int) -> dict:
    """What standin.json says, once it holds this run after `step` no more, or somebody asks it to stop."""
    while True:
        told = json.loads((run.path.parent / BEHAVIOUR).read_text())
        if FLAG.signal is not None or step < told.get("hold", {}).get(run.run_id, math.inf):
            return told
        time.sleep(0.05)


def loss(value: str) -> float:
    return int(value[:8], 16) / 2**32


def blank_record(**known: object) -> RunRecord:
    required = [field for field in fields(RunRecord) if field.default is MISSING]
    blank = {field.name: BLANK.get(str(field.type)) for field in required}
    return RunRecord(**{**blank, "status": "done", **known})


if __name__ == "__main__":
    task.FLAG = FLAG
    sys.exit(task.main(sys.argv[1:], (sys.executable, str(Path(__file__).resolve())), train))
