"""Curves from a table: one logged row a line, with columns run_id, step and the metric, and lr where known.

What is known of whole runs (params_total or params_non_embedding, flops, tokens, group) stands in the same
rows or in a table of runs; for X_curves.csv that is X.csv beside it, unless another is named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from harness.errors import CannotAnswer, WrongInput
from harness.forecast.inflight.reward import settled
from harness.forecast.inflight.trajectory import Metric, Schedule, Trajectory
from harness.laws.cells import fault_of, value_of
from harness.laws.columns import SHOWN_COLUMNS, mapped, need
from harness.laws.filters import parse_filter
from harness.laws.sources.source import load
from harness.laws.sources.table import Cells
from harness.laws.surfaces import FLOPS_PER_PARAM_TOKEN, Floats
from harness.laws.tables import filtered

SIZES = ("params_total", "params_non_embedding", "params_body_and_head")
CURVES = "_curves"
FEWEST = 4
HORIZON = "horizon"


def read_trajectories(
    path: Path,
    metric: Metric,
    where: Sequence[str] = (),
    columns: Mapping[str, str] = {},
    runs: Path | None = None,
    by: str | None = None,
    until: float | None = None,
) -> list[Trajectory]:
    """Every run of the table with at least four rows, as it ended; a table without run_id is one run.

    A row with `horizon` (`until` where it says none) beyond the run's last step says that it still runs. `by`
    names the column whose values are sweeps of their own. Raises WrongInput for columns that are not there,
    steps that do not increase or losses that are not positive, CannotAnswer when no run is left.
    """
    filters = [parse_filter(text) for text in where]
    table = mapped(load(path), columns, ("step", "lr", metric.value, HORIZON))
    if metric.value not in table.columns:
        there = ", ".join(table.columns[:SHOWN_COLUMNS])
        name = f"columns={{{metric.value}: ITS_NAME}}"
        raise WrongInput(f"{path} has no column {metric.value!r}; there are {there}; name it: {name}")
    need(table, ("step", *(f.column for f in filters)))
    kept, _ = filtered(table, filters)
    by_run: dict[str, list[Cells]] = {}
    for _, cells in kept:
        if cells[metric.value]:  # a row of something else has none; a loss that is gone is nan
            by_run.setdefault(cells.get("run_id", path.stem), []).append(cells)
    about = about_runs(path, runs)
    if by is not None and not any(by in cells for cells in (*table.rows[:1], *about.values())):
        raise WrongInput(f"by={by}: neither {path} nor a table of its runs has that column")
    found = [
        trajectory(path, name, rows, about.get(name, {}), metric, by, until)
        for name, rows in by_run.items()
        if len(rows) >= FEWEST
    ]
    if not found:
        raise CannotAnswer(f"{path} has no run of at least {FEWEST} rows")
    return found


def about_runs(path: Path, runs: Path | None) -> dict[str, Cells]:
    """The table of runs by run id; none when it is not named and none stands beside the curves."""
    if runs is None:
        beside = path.with_name(path.name.replace(CURVES, ""))
        if beside == path or not beside.exists():
            return {}
        runs = beside
    return {cells.get("run_id", ""): cells for cells in load(runs).rows}


def trajectory(
    path: Path,
    name: str,
    rows: Sequence[Cells],
    about: Cells,
    metric: Metric,
    by: str | None,
    until: float | None,
) -> Trajectory:
    steps, values = (
        np.array([value_of(cells, column) for cells in rows]) for column in ("step", metric.value)
    )
    refuse_disorder(path, name, rows, steps)
    if metric is Metric.loss and (values <= 0).any():
        raise WrongInput(
            f"{path}: {name!r} has a loss that is not positive; correct it, or use metric=reward"
        )
    params = first_positive([rows[0], about], SIZES)
    horizon = first_positive([rows[-1]], (HORIZON,)) or until
    end = float(steps[-1]) if horizon is None else horizon
    running = end > steps[-1] * (1 + 1e-9)
    lost = fault_of({**about, **rows[-1]}) == "diverged" or not math.isfinite(values[-1])
    whole = {**about, **rows[0]}
    return Trajectory(
        run_id=name,
        steps=steps,
        values=values,
        end=end,
        budget=budget(whole, rows[-1], params, end),
        params=params,
        schedule=planned_schedule(name, rows, steps),
        final=None if running or lost else final_of(metric, steps, values, end),
        diverged=lost,
        sweep=whole.get(by, "") if by else "",
        cell=f"{params}/{end:g}",
    )


def refuse_disorder(path: Path, name: str, rows: Sequence[Cells], steps: Floats) -> None:
    """Raises WrongInput for rows of several kinds in one curve, or steps that do not increase."""
    if len(kinds := sorted({cells.get("kind", "") for cells in rows})) > 1:
        raise WrongInput(
            f"{path}: {name!r} has rows of kind {', '.join(kinds)}; choose: 'where=[\"kind={kinds[-1]}\"]'"
        )
    if not np.isfinite(steps).any():
        raise WrongInput(
            f"{path}: {name!r} has no steps; name what stands for them: columns={{step: ITS_NAME}}"
        )
    if not (np.isfinite(steps).all() and (np.diff(steps) > 0).all() and steps[0] >= 0):
        raise WrongInput(f"{path}: the steps of {name!r} must be numbers that increase")


def planned_schedule(name: str, rows: Sequence[Cells], steps: Floats) -> Schedule | None:
    """None unless every row says its learning rate. Raises WrongInput for one that cannot be."""
    lr = np.array([value_of(cells, "lr") for cells in rows])
    try:
        return Schedule.of(steps, lr) if np.isfinite(lr).all() else None
    except WrongInput as error:
        raise WrongInput(f"the run {name!r}: {error}") from error


def final_of(metric: Metric, steps: Floats, values: Floats, end: float) -> float:
    return float(values[-1]) if metric is Metric.loss else settled(steps, values, end)


def first_positive(sources: Sequence[Cells], names: Sequence[str]) -> float | None:
    values = (value_of(cells, name) for cells in sources for name in names)
    return next((value for value in values if value > 0), None)


def budget(whole: Cells, last: Cells, params: float | None, end: float) -> float:
    """FLOPs; where they are not known 6ND, or what orders runs as well: tokens, size times steps, steps."""
    if (flops := first_positive([whole], ("flops",))) is not None:
        return flops
    tokens = first_positive([last, whole], ("tokens",))
    if tokens is not None:
        return FLOPS_PER_PARAM_TOKEN * params * tokens if params else tokens
    return params * end if params else end
