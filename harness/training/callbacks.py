"""What happens between spans of steps: metrics, validation, checkpoints, stopping."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import lightning
import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from harness.runs import Attempt
from harness.signals import StopFlag
from harness.training.cell import Cell
from harness.training.checkpoint import State, save
from harness.training.distributed import ALONE, World, gathered, largest
from harness.training.module import Span, TrainingModule


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
    """One training row a span; ends the run when a loss is not finite."""

    def __init__(self, cell: Cell, attempt: Attempt, clock: Clock, world: World = ALONE) -> None:
        self.cell, self.attempt, self.clock, self.world = cell, attempt, clock, world
        self.diverged_at: int | None = None
        self.train_loss: float | None = None

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        result = module.span_result
        if result.first_bad is not None:
            self.diverged_at = batch.start + result.first_bad + 1
            trainer.should_stop = True
            return
        self.train_loss = math.fsum(result.losses) / len(result.losses)
        self.attempt.append_metrics([self.row(batch, module, max(result.grad_norms))])

    def row(self, span: Span, module: TrainingModule, grad_norm: float) -> dict[str, Any]:
        tokens = span.stop * self.cell.horizon.batch_tokens
        flops = self.cell.shape.training_flops(tokens)
        peak = self.cell.config.hardware.peak_flops
        return {
            "kind": "train",
            "step": span.stop,
            "tokens": tokens,
            "flops": flops,
            "lr": module.lr_at(span.stop - 1),
            "loss": self.train_loss,
            "grad_norm": grad_norm,  # the largest since the last row
            "tokens_per_second": round(self.clock.speed, 1),
            "mfu": self.clock.speed * flops / tokens / (peak * self.world.size) if peak else None,
        }


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
    """A checkpoint every so many seconds, and one when asked to stop."""

    def __init__(
        self,
        cell: Cell,
        attempt: Attempt,
        clock: Clock,
        started_at: str,
        world: World = ALONE,
        earlier_sizes: str = "",
    ) -> None:
        self.cell, self.attempt, self.clock, self.started_at = cell, attempt, clock, started_at
        self.world, self.earlier_sizes = world, earlier_sizes
        self.saved_at = time.monotonic()

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Span, index: int) -> None:
        late = time.monotonic() - self.saved_at >= self.cell.config.saving.checkpoint_seconds
        due = largest(late and self.world.leads, module.device)  # one clock decides for all
        if due and not trainer.should_stop and batch.stop < self.cell.horizon.steps:
            self.save(module, batch.stop)

    def save(self, module: TrainingModule, step: int) -> None:
        self.attempt.check()
        self.attempt.sync_metrics()
        state = State(
            step=step,
            model=gathered(module.model.state_dict()),
            optimizer=gathered(module.own_optimizer.state_dict()),
            micro_batch=module.micro_batch,
            threads=torch.get_num_threads(),
            compiled=module.compiled,
            train_seconds=self.clock.train_seconds,
            started_at=self.started_at,
            world_size=self.world.size,
            earlier_sizes=self.earlier_sizes,
        )
        if self.world.leads:
            save(self.attempt.run.checkpoints, state)
        self.saved_at = time.monotonic()


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
