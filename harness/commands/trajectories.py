"""The runs of a sweep's folder as `harness watch` sees them: what they logged, and what was planned."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.forecast.inflight.reward import settled
from harness.forecast.inflight.trajectory import Metric, Schedule, Trajectory
from harness.laws.sources.source import Source, source_of
from harness.runs import RunDirectory, RunRecord, Skipped, Status, run_directories
from harness.training.cell import Cell, read_cell
from harness.training.schedule import build_schedule

BEGUN = (Status.running, Status.interrupted, Status.lost)
"""Those that stopped go on from their checkpoints, so that they are watched as well."""

RATES = 513


@dataclass(frozen=True)
class Watched:
    """The runs of one sweep: those under way, those that finished, those that diverged, and the others."""

    running: list[Trajectory]
    finished: list[Trajectory]
    diverged: list[Trajectory]
    left_out: list[Skipped]


def watched(folder: Path, metric: Metric) -> Watched:
    """Raises WrongInput when the folder is not one sweep's, CannotAnswer when no run has begun."""
    if not folder.is_dir():
        raise WrongInput(f"{folder} does not exist; sweep= takes a group of runs_dir= or a folder of runs")
    found = Watched([], [], [], [])
    for run in run_directories(folder):
        if run.path.parent != folder:
            raise WrongInput(f"{folder} is not the folder of one sweep; {run.path.parent} is")
        try:
            record, status = run.record_if_any(), run.status()
            if status in (*BEGUN, Status.done, Status.diverged):
                sorted_in(found, trajectory(run, record, metric))
            else:
                found.left_out.append(Skipped(run.run_id, status.value))
        except WrongInput as error:
            found.left_out.append(Skipped(run.run_id, str(error)))
    if not (found.running or found.finished or found.diverged):
        raise CannotAnswer(f"{folder}: no run has begun and logged a {metric.value}")
    return found


def loss_curves(source: Path) -> list[Trajectory]:
    """Of the finished runs of a sweep's folder; none of a table, or of a folder of other logs."""
    if not source.is_dir() or source_of(source) is not Source.records:
        return []
    found = []
    for run in run_directories(source):
        with contextlib.suppress(WrongInput):  # a damaged run is left out, and said so, by the fit
            if (record := run.record_if_any()) is not None:
                found.append(trajectory(run, record, Metric.loss))
    return [curve for curve in found if curve.final is not None]


def sorted_in(found: Watched, run: Trajectory) -> None:
    if not len(run.steps):
        found.left_out.append(Skipped(run.run_id, "nothing logged yet"))
    elif run.diverged:
        found.diverged.append(run)
    elif run.final is not None:
        found.finished.append(run)
    else:
        found.running.append(run)


def trajectory(run: RunDirectory, record: RunRecord | None, metric: Metric) -> Trajectory:
    """Training losses, or the rows that have the metric. A finished run's result is its validation loss, or
    the mean reward at its end."""
    cell = read_cell(run)
    rows = [row for row in run.metrics() if counts(row, metric)]
    steps = np.array([row["step"] for row in rows], dtype=float)
    values = np.array([row[metric.value] for row in rows], dtype=float)  # None is nan
    end = float(cell.horizon.steps)
    return Trajectory(
        run_id=run.run_id,
        steps=steps,
        values=values,
        end=end,
        budget=cell.flops,
        params=float(cell.shape.params.non_embedding),
        schedule=planned_schedule(cell),
        final=result(record, metric, steps, values, end),
        diverged=record is not None and record.status == Status.diverged.value,
        cell=f"{cell.shape.params.total}/{cell.horizon.tokens}",
    )


def counts(row: dict[str, Any], metric: Metric) -> bool:
    return metric.value in row and (metric is not Metric.loss or row["kind"] == "train")


def result(
    record: RunRecord | None, metric: Metric, steps: np.ndarray, values: np.ndarray, end: float
) -> float | None:
    if record is None or record.status != Status.done.value or not np.isfinite(values).any():
        return None
    return record.loss if metric is Metric.loss else settled(steps, values, end)


def planned_schedule(cell: Cell) -> Schedule:
    steps = cell.horizon.steps
    lr_at = build_schedule(cell.config.schedule, cell.peak_lr, steps, cell.horizon.batch_tokens)
    at = np.unique(np.linspace(0, steps - 1, RATES).round().astype(int))
    return Schedule.of(at.astype(float), np.array([lr_at(int(step)) for step in at]))
