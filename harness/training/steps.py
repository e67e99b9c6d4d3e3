"""Where a run's steps are cut: into spans, rows of metrics and validations."""

from __future__ import annotations

import itertools

from torch.utils.data import DataLoader

from harness.training.cell import Cell
from harness.training.module import Span
from harness.training.settings import Device

ROWS_PER_RUN = 100
SPAN_FLOPS, GPU_SPAN_FLOPS = 2e11, 1e14
"""A run saves and stops between spans: a few seconds apart on one CPU core, every step of a large model. On a
GPU a second or less, in which the host runs ahead and waits for nothing."""


def evaluation_steps(cell: Cell) -> set[int]:
    """The step nearest to every multiple of `every_tokens`, and the last."""
    every, batch = cell.config.evaluation.every_tokens, cell.horizon.batch_tokens
    marks = range(1, cell.horizon.tokens // every + 1)
    return {max(1, round(mark * every / batch)) for mark in marks} | {cell.horizon.steps}


def row_steps(cell: Cell, evaluate_at: set[int], last: int) -> set[int]:
    """Where rows of metrics end."""
    on_gpu = cell.config.hardware.device is Device.cuda
    least = GPU_SPAN_FLOPS if on_gpu else SPAN_FLOPS
    affordable = int(least / cell.shape.training_flops(cell.horizon.batch_tokens))
    every = max(1, min(cell.config.saving.log_steps, cell.horizon.steps // ROWS_PER_RUN, affordable))
    return {*range(every, last, every), *evaluate_at, last}


def spans(cell: Cell, first: int, cut_at: set[int], last: int | None = None) -> DataLoader:
    """The steps from `first` to `last` (the horizon), cut where a row is logged, and at `cut_at`."""
    last = last or cell.horizon.steps
    cuts = sorted({first} | {step for step in row_steps(cell, cut_at, last) if step > first})
    parts = [Span(start, stop) for start, stop in itertools.pairwise(cuts)]
    return DataLoader(parts, batch_size=None)  # type: ignore[arg-type]  # any sequence will do
