"""What each step says of itself, kept until it is written down as rows of metrics."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from harness.training.checkpoint import State


class StepLog:
    """Losses in nats per token and gradient norms of the steps from `first` on.

    A row of metrics ends at each of `marks`, or without any wherever a span does. A log that is to be kept
    holds every step, so that a run of another horizon, whose rows end elsewhere, can start from it.
    """

    def __init__(self, marks: Sequence[int] | None = None, *, first: int = 0, keep: bool = False) -> None:
        self.marks, self.first, self.keep = marks, first, keep
        self.losses, self.grad_norms = array("d"), array("d")

    @property
    def stop(self) -> int:
        return self.first + len(self.losses)

    def add(self, losses: Iterable[float], grad_norms: Iterable[float]) -> None:
        self.losses.extend(losses)
        self.grad_norms.extend(grad_norms)

    def is_mark(self, step: int) -> bool:
        if self.marks is None:
            return True
        place = bisect_left(self.marks, step)
        return place < len(self.marks) and self.marks[place] == step

    def row(self, stop: int) -> tuple[float, float]:
        """The mean loss and the largest gradient norm since the mark before `stop`."""
        place = bisect_left(self.marks, stop) if self.marks else 0
        before = self.marks[place - 1] if self.marks and place else 0
        kept = slice(max(before - self.first, 0), stop - self.first)
        losses = self.losses[kept]
        return math.fsum(losses) / len(losses), max(self.grad_norms[kept])

    def written(self) -> None:
        """All rows so far are on file."""
        if not self.keep:
            self.first = self.stop
            self.losses, self.grad_norms = array("d"), array("d")

    def tensors(self) -> tuple[Tensor, Tensor]:
        """Losses and norms, float64 [steps] each."""
        return torch.from_numpy(np.array(self.losses)), torch.from_numpy(np.array(self.grad_norms))


def step_log(marks: Iterable[int], state: State | None, *, keep: bool) -> StepLog:
    """The log of a run that goes on from `state`. It begins there unless the state holds all steps."""
    if state is None:
        return StepLog(sorted(marks), keep=keep)
    if state.losses is None or state.grad_norms is None:
        return StepLog(sorted(marks), first=state.step, keep=keep)
    log = StepLog(sorted(marks), keep=keep)
    log.add(state.losses.tolist(), state.grad_norms.tolist())
    return log
