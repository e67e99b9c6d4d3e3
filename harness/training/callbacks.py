"""What happens between spans of steps: metrics, validation, checkpoints, stopping."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.runs import Attempt
from harness.signals import StopFlag
from harness.training.cell import Cell
from harness.training.checkpoint import State, save
from harness.training.distributed import ALONE, World, choose_device, gathered, largest
from harness.training.lean import lightning
from harness.training.module import Span, TrainingModule
from harness.training.peaks import peak_flops
from harness.training.schedule import LrAt
from harness.training.steplog import StepLog

SHARE = 0.05
"""Of the time, that saving may take: a checkpoint of a billion parameters takes longer than its interval."""


class Clock(lightning.Callback):
    """Training seconds, over all attempts, without validation and saving; the first span of an attempt
    (it may compile) counts as time but not towards the speed."""

    def __init__(self, seconds_before: float, batch_tokens: int) -> None:
        self.train_seconds = seconds_before
        self.batch_tokens = batch_tokens
        self.steady_seconds, self.steady_tokens, self.speed = 0.0, 0, 0.0
        self.warm = False

    def on_train_batch_start(self, *_: Any) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        seconds = time.perf_counter() - self.started
        tokens = (batch.stop - batch.start) * self.batch_tokens
        self.train_seconds += seconds
        self.speed = tokens / seconds
        if self.warm:
            self.steady_seconds += seconds
            self.steady_tokens += tokens
        self.warm = True

    @property
    def tokens_per_second(self) -> float:
        return self.steady_tokens / self.steady_seconds if self.steady_seconds else self.speed


class Metrics(lightning.Callback):
    """A training row at every mark of the log; ends the run when a loss is not finite."""

    def __init__(
        self,
        cell: Cell,
        attempt: Attempt,
        clock: Clock,
        world: World = ALONE,
        log: StepLog | None = None,
    ) -> None:
        self.cell, self.attempt, self.clock, self.world = cell, attempt, clock, world
        self.step_log = log or StepLog()
        self.peak = peak_flops(cell.config.hardware, choose_device(cell.config.hardware.device))
        self.diverged_at: int | None = None
        self.train_loss: float | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        result = module.span_result
        if result.first_bad is not None:
            self.diverged_at = batch.start + result.first_bad + 1
            trainer.should_stop = True
            return
        self.step_log.add(result.losses, result.grad_norms)
        if self.step_log.is_mark(batch.stop):
            self.attempt.append_metrics([self.row(batch.stop, module.lr_at, self.clock.speed)])
            self.step_log.written()

    def row(self, step: int, lr_at: LrAt, speed: float | None) -> dict[str, Any]:
        """The row that ends at `step`; without a speed for steps that another run took."""
        tokens = step * self.cell.horizon.batch_tokens
        flops = self.cell.shape.training_flops(tokens)
        self.train_loss, grad_norm = self.step_log.row(step)
        return {
            "kind": "train",
            "step": step,
            "tokens": tokens,
            "flops": flops,
            "lr": lr_at(step - 1),
            "loss": self.train_loss,
            "grad_norm": grad_norm,  # the largest since the last row
            "tokens_per_second": round(speed, 1) if speed else None,
            "mfu": speed * flops / tokens / (self.peak * self.world.size) if speed and self.peak else None,
        }

    def take_over(self, validations: list[dict[str, Any]], lr_at: LrAt) -> None:
        """Write the rows of the steps that another run took, as this run would have written them."""
        marks = [step for step in self.step_log.marks or () if step <= self.step_log.stop]
        rows = [*(self.row(step, lr_at, None) for step in marks), *validations]
        self.attempt.append_metrics(sorted(rows, key=lambda row: (row["step"], row["kind"])))


class Validation(lightning.Callback):
    """Loss on the fixed validation windows, at the planned steps."""

    def __init__(
        self, cell: Cell, attempt: Attempt, windows: np.ndarray, windows_bytes: int, steps: set[int]
    ) -> None:
        self.cell, self.attempt, self.windows, self.steps = cell, attempt, windows, steps
        self.tokens_per_byte = windows[:, 1:].size / windows_bytes
        self.loss: float | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        if batch.stop in self.steps and not trainer.should_stop:
            self.measure(module, batch.stop)

    def measure(self, module: TrainingModule, step: int) -> None:
        self.loss = module.validation_loss(self.windows)
        tokens = step * self.cell.horizon.batch_tokens
        row = {
            "kind": "validation",
            "step": step,
            "tokens": tokens,
            "flops": self.cell.shape.training_flops(tokens),
            "loss": self.loss if math.isfinite(self.loss) else None,
            "bits_per_byte": self.bits_per_byte if math.isfinite(self.loss) else None,
        }
        self.attempt.append_metrics([row])

    @property
    def bits_per_byte(self) -> float | None:
        """Nats per token into bits per byte of the same text: comparable across tokenizers."""
        return None if self.loss is None else self.loss * self.tokens_per_byte / math.log(2)


class Saver(lightning.Callback):
    """A checkpoint every so many seconds, less often where saving would take more than a `SHARE` of the time,
    and one when asked to stop. `shared` is what the run took over from another."""

    def __init__(
        self,
        cell: Cell,
        attempt: Attempt,
        clock: Clock,
        started_at: str,
        world: World = ALONE,
        earlier_sizes: str = "",
        log: StepLog | None = None,
        shared: dict[str, Any] | None = None,
        attention_tiles: tuple[int, ...] | None = None,
    ) -> None:
        self.attention_tiles = attention_tiles
        self.cell, self.attempt, self.clock, self.started_at = cell, attempt, clock, started_at
        self.world, self.earlier_sizes = world, earlier_sizes
        self.step_log, self.shared = log, shared
        self.saved_at, self.took = time.monotonic(), 0.0

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        due = largest(self.is_late and self.world.leads, module.device)  # one clock decides for all
        if due and not trainer.should_stop and batch.stop < self.cell.horizon.steps:
            self.save(module, batch.stop)

    @property
    def is_late(self) -> bool:
        wanted = self.cell.config.saving.checkpoint_seconds
        return time.monotonic() - self.saved_at >= (max(wanted, self.took / SHARE) if wanted else 0)

    def save(self, module: TrainingModule, step: int) -> None:
        began = time.monotonic()
        self.attempt.check()
        self.attempt.sync_metrics()
        state = self.state(module, step)  # every process must ask for it
        if self.world.leads:
            save(self.attempt.run.checkpoints, state)
        self.saved_at = time.monotonic()
        self.took = self.saved_at - began

    def state(self, module: TrainingModule, step: int) -> State:
        losses, grad_norms = self.step_log.tensors() if self.step_log and self.step_log.keep else (None, None)
        return State(
            step=step,
            model=gathered(module.model.state_dict(), self.world.leads),
            optimizer=gathered(module.own_optimizer.state_dict(), self.world.leads),
            micro_batch=module.micro_batch,
            threads=torch.get_num_threads(),
            compiled=module.compiled,
            train_seconds=self.clock.train_seconds,
            started_at=self.started_at,
            world_size=self.world.size,
            earlier_sizes=self.earlier_sizes,
            losses=losses,
            grad_norms=grad_norms,
            shared=self.shared,
            attention_tiles=self.attention_tiles,
        )


class StopOnSignal(lightning.Callback):
    """Once the flag is set the run saves and stops at the end of the span. A signal to one of several
    processes stops them all; `agreed` is the one, 0 for none."""

    def __init__(self, saver: Saver, flag: StopFlag) -> None:
        self.saver, self.flag = saver, flag
        self.agreed = 0

    def on_train_start(self, *_: Any) -> None:
        self.flag.listen()  # Lightning has put its own SIGTERM handler in front, which would lose the run

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        finished = batch.stop == self.saver.cell.horizon.steps
        self.agreed = largest(self.flag.signal or 0, module.device)
        if self.agreed and not finished and not trainer.should_stop:
            self.saver.save(module, batch.stop)
            trainer.should_stop = True


class ProgressBar(lightning.Callback):
    """Live on a terminal, silent in a log file."""

    def __init__(self, cell: Cell, first_step: int, clock: Clock) -> None:
        self.clock = clock
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("steps"))
        self.progress = Progress(
            *columns, TextColumn("{task.fields[note]}"), TimeRemainingColumn(compact=True)
        )
        self.progress.console.file = sys.stderr
        self.task = self.progress.add_task(
            cell.run_id, total=cell.horizon.steps, completed=first_step, note="starting"
        )

    def on_train_start(self, *_: Any) -> None:
        self.progress.start()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        loss = module.span_result.losses[-1]
        note = f"{self.clock.tokens_per_second:,.0f} tokens/s  loss {loss:.3f}"
        self.progress.update(self.task, completed=batch.stop, note=note)

    def teardown(self, *_: Any, **__: Any) -> None:
        self.progress.stop()
