"""Trains runs in processes that die by SIGKILL at a chosen instant.

python killed.py    reads lines {"run": path, "kill": how or null, "at": number} and answers each with how the
                    attempt ended: 0 finished, -9 killed, anything else a failure

What is imported once serves all attempts: each is a fork of a process that has trained nothing itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import IO


class Kill(Enum):
    """Where a process dies, counted within one attempt from 0."""

    file_operation = "before the n-th file is opened for writing, renamed or removed below the group's folder"
    checkpoint = "in the middle of writing the n-th checkpoint (or trunk state)"
    pointer = "between the n-th checkpoint and its pointer"
    validation = "in the middle of the n-th micro-batch of validation"
    metrics = "in the middle of writing the n-th rows of metrics"
    record = "before the record is written"
    seconds = "n seconds after it began, wherever it is"


class Trainer:
    """The process above, as a test sees it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def train(self, run: Path, kill: Kill | None = None, at: float = 0) -> int:
        assert self.process.stdin and self.process.stdout
        order = {"run": str(run), "kill": kill.name if kill else None, "at": at}
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        self.process.wait(600)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_call(number: float, act: Callable, before: Callable[..., None]) -> Callable:
    """`act`, but with `before` and death in place of its n-th call."""
    left = [number]

    def counted(*arguments: object, **named: object) -> object:
        if left[0] <= 0:
            before(*arguments)
            die()
        left[0] -= 1
        return act(*arguments, **named)

    return counted


def arm(kill: Kill, at: float, group: Path) -> None:
    """In the child, before it trains."""
    import torch

    from harness.runs import Attempt
    from harness.training import checkpoint
    from harness.training.module import TrainingModule

    def nothing(*_: object) -> None:
        pass

    def half_a_checkpoint(value: object, file: IO[bytes]) -> None:
        whole = group / f".whole.{os.getpid()}"
        save(value, whole)
        file.write(whole.read_bytes()[: whole.stat().st_size // 2])
        file.flush()
        whole.unlink()

    def half_a_row(attempt: Attempt, rows: list[dict]) -> None:
        text = json.dumps(rows[0])
        with (attempt.run.path / "metrics.jsonl").open("a") as file:
            file.write(text[: len(text) // 2])

    save = torch.save
    match kill:
        case Kill.file_operation:
            sys.addaudithook(file_watch(at, group))
        case Kill.checkpoint:
            checkpoint.torch.save = at_call(at, save, half_a_checkpoint)
        case Kill.pointer:
            checkpoint.write_text = at_call(at, checkpoint.write_text, nothing)
        case Kill.validation:
            validating = at_call(at, TrainingModule.to_device, nothing)
            training = TrainingModule.to_device
            TrainingModule.to_device = lambda module, windows: (
                training if torch.is_grad_enabled() else validating
            )(module, windows)
        case Kill.metrics:
            Attempt.append_metrics = at_call(at, Attempt.append_metrics, half_a_row)
        case Kill.record:
            Attempt.finish = at_call(at, Attempt.finish, nothing)
        case Kill.seconds:
            pass  # the parent's affair


def file_watch(number: float, group: Path) -> Callable[[str, tuple], None]:
    left = [number]

    def watch(event: str, arguments: tuple) -> None:
        if event not in ("open", "os.rename", "os.remove"):
            return
        name, mode = str(arguments[0]), arguments[1]
        writes = event != "open" or (isinstance(mode, str) and set(mode) & set("wa+"))
        if writes and name.startswith(str(group)):
            if left[0] <= 0:
                die()
            left[0] -= 1

    return watch


def attempt(run: Path, kill: Kill | None, at: float) -> int:
    """How a child that trains `run` ends: its exit code, or minus the signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            if kill is not None:
                arm(kill, at, run.parent)
            from harness.runs import RunDirectory
            from harness.training.run import train

            train(RunDirectory(run))
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    if kill is Kill.seconds:
        time.sleep(at)
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


if __name__ == "__main__":
    import harness.training.run  # noqa: F401  for all the children

    for line in sys.stdin:
        order = json.loads(line)
        how = Kill[order["kill"]] if order["kill"] else None
        print(attempt(Path(order["run"]), how, order["at"]), flush=True)
