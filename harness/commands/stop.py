"""Stop what works through a sweep on this machine, wherever it was started. Every run saves first.

    harness stop experiment=demo
    harness stop group=mine
    harness stop group=mine wait_seconds=300      for large checkpoints

`harness sweep` with the same words goes on from there. Exit code 1 when something still runs, here or on
another machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from harness.commands.root import Experiment, Format
from harness.config import verb
from harness.errors import CannotAnswer, WrongInput
from harness.report.terminal import print_json, print_lines
from harness.sweep.stop import Stopped, Worker, stop


@dataclass(kw_only=True)
class Settings(Experiment):
    wait_seconds: float = 90.0


@verb("stop", Settings)
def main(settings: Settings) -> None:
    if not settings.folder.is_dir():
        raise WrongInput(f"{settings.folder} does not exist; say group= or experiment= of the sweep to stop")
    done = stop(settings.folder, settings.wait_seconds)
    if settings.format is Format.json:
        print_json({name: [plain(worker) for worker in workers] for name, workers in vars(done).items()})
    else:
        print_lines(*lines(settings, done))
    if running := [*done.left, *done.elsewhere]:
        raise CannotAnswer(f"{said(running)} still run; for another machine type the same words there")


def lines(settings: Settings, done: Stopped) -> list[str]:
    if not done.stopped:
        return [f"{settings.folder}: nothing was stopped"]
    return [f"{settings.folder}: stopped {said(done.stopped)}"]


def said(workers: Sequence[Worker]) -> str:
    return ", ".join(
        f"{worker.run_id or 'a sweep'} (process {worker.process.pid} on {worker.process.host})"
        for worker in workers
    )


def plain(worker: Worker) -> dict[str, str | int]:
    return {"run_id": worker.run_id, "host": worker.process.host, "pid": worker.process.pid}
