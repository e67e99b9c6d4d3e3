"""`harness plan next=K`: of the cells that the axes describe, those worth their FLOPs for a bet."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from harness.commands.cells import planned
from harness.commands.figures import figure_line, typed, write_figure
from harness.commands.observe import observe, params_kind
from harness.commands.root import Experiment, Format
from harness.errors import CannotAnswer
from harness.forecast.design import Cost, Design, design, extrapolation, joint_covariance, useful
from harness.forecast.engine import Target, build_engine, growth, run_noise
from harness.forecast.ensemble import MEMBERS
from harness.forecast.replay import replay
from harness.laws.config import ParamsKind
from harness.report.replay import replay_figure
from harness.report.terminal import print_json, print_lines, print_table, si
from harness.runs import PLAN
from harness.sweep.plan import PlannedCell, read_plan
from harness.sweep.units import Unit, shared_tokens, units
from harness.training.cell import Cell


@dataclass(frozen=True)
class NextRuns:
    """The cells to train next in the order of their worth, and what is known of the bet before and after."""

    target: Target
    design: Design
    cells: tuple[Cell, ...]
    candidates: int


def next_runs(
    settings: Experiment, bet: tuple[float, float], cells: Sequence[Cell], count: int, budget: float
) -> NextRuns:
    """For a bet on (params, tokens). Raises CannotAnswer when every candidate is planned already, or none can
    be paid."""
    target = Target(params=bet[0], tokens=bet[1])
    observations = observe(settings, params_kind(settings), settings.fit.unit)
    before = read_plan(settings.folder) if (settings.folder / PLAN).exists() else []
    begun = {cell.run_id for cell in before}
    new = [cell for cell in cells if cell.run_id not in begun]
    if not new:
        raise CannotAnswer("every cell of these axes is planned already; add values to sweep.axes")
    engine = build_engine(observations, settings.forecast, MEMBERS)
    ensemble = engine.weighed(engine.ratio(target))
    rows = points(new, target, observations.params_kind)
    flops = np.array([*(cell.flops for cell in new), target.budget])
    there = {name: column[:-1] for name, column in rows.items()}
    seen = useful(ensemble, there, flops[:-1], (observations.flops, observations.loss))
    candidates = len(new)
    new, rows = [cell for cell, one in zip(new, seen, strict=True) if one], chosen_rows(rows, seen)
    beyond = extrapolation(
        flops[np.append(seen, True)],
        float(observations.flops.max()),
        growth(engine.rolling, engine.ratio(target), len(observations)),
    )
    covariance = joint_covariance(ensemble, rows) + beyond
    cost = marginal_cost([planned(cell) for cell in new], before)
    found = design(covariance, run_noise(engine.core), cost, count, budget)
    return NextRuns(target, found, tuple(new[one.candidate] for one in found.chosen), candidates)


def chosen_rows(rows: dict[str, np.ndarray], keep: np.ndarray) -> dict[str, np.ndarray]:
    """Of the candidates those to keep, and the bet."""
    return {name: column[np.append(keep, True)] for name, column in rows.items()}


def points(cells: Sequence[Cell], target: Target, kind: ParamsKind) -> dict[str, np.ndarray]:
    """Parameters and tokens of the candidates and, last, of the bet."""
    params = [getattr(cell.shape.params, kind.value) for cell in cells]
    tokens = [cell.horizon.tokens for cell in cells]
    return {
        "params": np.array([*params, target.params], float),
        "tokens": np.array([*tokens, target.tokens], float),
    }


def marginal_cost(cells: Sequence[PlannedCell], before: Sequence[PlannedCell]) -> Cost:
    """What a cell adds to the FLOPs of those chosen: the tokens that neither they nor the runs there are
    train for it. Each cell is chosen once."""
    ready: dict[str, list[int]] = defaultdict(list)
    for cell in before:
        ready[cell.trunk].append(cell.trunk_tokens)

    def together(numbers: Collection[int]) -> float:
        return sum(map(unit_flops, units(cells[i] for i in numbers)))

    def unit_flops(unit: Unit) -> float:
        shared = shared_tokens([unit], ready)
        return sum(cell.flops * (1 - shared[cell.run_id] / cell.tokens) for cell in unit)

    def cost(candidate: int, chosen: Sequence[int]) -> float:
        if candidate in chosen:
            return math.inf
        alike = [i for i in chosen if cells[i].trunk and cells[i].trunk == cells[candidate].trunk]
        return together([*alike, candidate]) - together(alike)

    return cost


def show_next(settings: Experiment, found: NextRuns, planned_cells: Sequence[PlannedCell]) -> None:
    design = found.design
    if settings.format is Format.json:
        cells = [
            {**vars(cell), "added_flops": one.flops, "std_after": one.std_after}
            for cell, one in zip(planned_cells, design.chosen, strict=True)
        ]
        print_json(
            {
                "target": {"params": found.target.params, "tokens": found.target.tokens},
                "candidates": found.candidates,
                "std_before": design.std_before,
                "std_after": design.std_after,
                "flops": design.flops,
                "cells": cells,
            }
        )
        return
    print_table(
        f"{settings.group}: what to train next, of {found.candidates} cells",
        ("cell", "params", "tokens", "adds FLOPs", "bet known to"),
        [
            (
                cell.run_id,
                si(cell.params_non_embedding),
                si(cell.tokens),
                f"{one.flops:.3g}",
                f"{one.std_after:.2%}",
            )
            for cell, one in zip(planned_cells, design.chosen, strict=True)
        ],
    )
    print_lines(
        f"the loss of {si(found.target.params)} parameters after {si(found.target.tokens)} tokens is known "
        f"to {design.std_before:.2%} (one standard deviation, of the fits and between the laws), with these "
        f"{len(design.chosen)} runs for {design.flops:.3g} FLOPs to {design.std_after:.2%}"
    )


def show_replay(settings: Experiment, table: str, ratio: float, seeds: int, figure: str | None) -> None:
    settings.runs = table
    observations = observe(settings, params_kind(settings), settings.fit.unit)
    replayed = replay(observations, ratio, settings.forecast.delta, seeds)
    found = replayed.to_json()
    if figure:
        command = typed("plan")
        found["figure"] = write_figure(figure, replay_figure(found, command), command)
    if settings.format is Format.json:
        print_json(found)
        return
    print_table(
        f"{table}: {replayed.runs} runs to choose among, {replayed.flops:.3g} FLOPs",
        ("order", "share of FLOPs", "runs", "error", "from the full table's", "as near as its resamples"),
        [
            (
                m["order"],
                f"{m['share']:.0%}",
                f"{m['runs']:.0f}",
                f"{m['error']:.2%}",
                f"{m['distance']:.2%}",
                f"{m['reached']:.0%}",
            )
            for m in found["summary"]
        ],
    )
    print_lines(
        f"the full table's own error is {replayed.full_error:.2%}, and nine in ten of its resamples lie "
        f"within {replayed.full_noise:.2%} of it; means over {seeds} seeds of the absolute error of the runs "
        f"held out, of at least {ratio:g} times the compute of those chosen among"
    )
    if "figure" in found:
        print_lines(figure_line(found["figure"]))
