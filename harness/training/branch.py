"""Where a run leaves its trunk to longer ones, and how a longer one takes over from there.

runs/<group>/.trunks/<key>/step-<n>.pt holds the state in which the cooldown of an n-step trunk begins, with
what the run had written down by then. They may be deleted at any time: a run that finds none trains alone.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from harness.runs import TRUNK_STATES, TRUNKS, Attempt, RunDirectory
from harness.training.callbacks import Saver
from harness.training.cell import Cell
from harness.training.checkpoint import UNWRITABLE, State, path_of, read, write
from harness.training.lean import lightning
from harness.training.module import Span
from harness.training.trunk import Trunk


@dataclass(frozen=True)
class Shared:
    """What a run took over: which run trained it, how many steps and seconds of training, by what code."""

    run_id: str
    steps: int
    train_seconds: float
    code_version: str


@dataclass(frozen=True)
class Branch:
    """A run's state before its first own step, and the validation rows up to there."""

    state: State
    validations: list[dict[str, Any]]

    @property
    def shared(self) -> Shared:
        return Shared(**self.state.shared or {})


class TrunkSaver(lightning.Callback):
    """Leaves the state at the end of the trunk. It comes before `Saver`: a run that has a checkpoint of that
    step, or a later one, has left its trunk."""

    def __init__(self, saver: Saver, trunk: Trunk, code_version: str) -> None:
        self.saver, self.trunk, self.code_version = saver, trunk, code_version

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        complete = self.saver.step_log is not None and self.saver.step_log.first == 0
        if batch.stop == self.trunk.steps and complete and not trainer.should_stop:
            leave(self.saver.attempt, self.trunk, self.saver.state(module, batch.stop), self.code_version)


def folder_of(run: RunDirectory, trunk: Trunk) -> Path:
    return run.path.parent / TRUNKS / trunk.key


def leave(attempt: Attempt, trunk: Trunk, state: State, code_version: str) -> None:
    """Write the trunk's state unless it is there. A run goes on when it cannot: the longer ones pay."""
    run, path = attempt.run, path_of(folder_of(attempt.run, trunk), state.step)
    if path.exists():
        return
    attempt.check()
    rows = [row for row in run.metrics() if row["kind"] == "validation" and row["step"] <= state.step]
    about = Shared(run.run_id, state.step, state.train_seconds, code_version)
    value = {"state": {**vars(state), "shared": asdict(about)}, "validations": rows}
    try:
        write(path, value, run.checkpoints)
    except UNWRITABLE as error:
        reason = getattr(error, "strerror", None) or error
        print(f"cannot leave {path} ({reason}); longer runs will train these steps again", file=sys.stderr)


def branch_off(run: RunDirectory, cell: Cell, trunk: Trunk, evaluate_at: Collection[int]) -> Branch | None:
    """The longest trunk that this run can begin with, or None. What cannot be read is named on stderr, and
    set aside if it is damaged."""
    longest = min(trunk.steps, cell.horizon.steps - 1)  # its own last step is always to be validated
    files = {step_of(path): path for path in folder_of(run, trunk).glob(TRUNK_STATES)}
    for step in sorted((step for step in files if step <= longest), reverse=True):
        try:
            branch = read_branch(files[step], step, {mark for mark in evaluate_at if mark <= step})
            print(f"beginning at step {step}, with the trunk of {branch.shared.run_id}", file=sys.stderr)
            return branch
        except MemoryError:
            raise
        except OSError as error:  # says nothing about the file; another process may have set it aside
            print(f"cannot read {files[step]}: {error.strerror}", file=sys.stderr)
        except Exception as error:  # a torn file fails in many ways
            first = (str(error).splitlines() or [""])[0]
            print(f"trunk state {files[step]} is damaged ({first}); kept as *.damaged", file=sys.stderr)
            with contextlib.suppress(OSError):
                files[step].replace(files[step].with_suffix(".damaged"))
    print("no state of this trunk to begin with: training it from its first step", file=sys.stderr)
    return None


def step_of(path: Path) -> int:
    return int(path.stem.removeprefix("step-"))


def read_branch(path: Path, step: int, marks: Collection[int]) -> Branch:
    """Raises almost anything when the file is damaged, ValueError when it lacks what this run would have
    written down."""
    value = read(path)
    state = State(**value["state"])
    validations = [row for row in value["validations"] if row["step"] in marks]
    if state.step != step or state.losses is None or len(state.losses) != step:
        raise ValueError("it holds another step than its name says")
    if {row["step"] for row in validations} != set(marks):
        raise ValueError("validations are missing")
    return Branch(state, validations)
