"""The plan of a sweep: which cells, and what they cost. A plan is written before anything is spent."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness.errors import CannotAnswer, WrongInput
from harness.runs import write_text

PLAN = "plan.jsonl"


@dataclass(kw_only=True)
class SweepConfig:
    """Axes of a grid: override key -> values. `model: [20k, 45k]`, `horizon.flops: [1.0e12]`, `seed: [0, 1]`
    give every combination; `also` lists single cells beside the grid, each a list of overrides."""

    axes: dict[str, list[Any]] = field(default_factory=dict)
    also: list[list[str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        if empty := [key for key, values in self.axes.items() if not values]:
            raise ValueError(f"sweep.axes.{empty[0]} has no values")


@dataclass(frozen=True)
class PlannedCell:
    """One line of plan.jsonl."""

    run_id: str
    model: str
    params_non_embedding: int
    params_total: int
    tokens: int
    steps: int
    flops: float
    lr: float
    seed: int
    config_hash: str


def expand(sweep: SweepConfig) -> list[list[str]]:
    """The overrides of every cell: the product of the axes, then the single cells."""
    columns = [[f"{key}={value}" for value in values] for key, values in sweep.axes.items()]
    grid = [list(cell) for cell in itertools.product(*columns)] if columns else []
    cells = grid + [list(cell) for cell in sweep.also]
    if not cells:
        raise WrongInput("the sweep has no cells: set sweep.axes, e.g. sweep.axes.model=[20k,45k]")
    return cells


def write_plan(root: Path, cells: Sequence[PlannedCell], *, extend: bool) -> None:
    """Write runs/<sweep>/plan.jsonl; the same plan again changes nothing.

    Raises WrongInput for twice the same cell, CannotAnswer when the folder holds another plan and the
    caller did not ask to extend it: two grids must not mix by accident.
    """
    twice = {cell.run_id for cell in cells if sum(other.run_id == cell.run_id for other in cells) > 1}
    if twice:
        raise WrongInput(f"the plan holds the same cell twice: {', '.join(sorted(twice))}")
    planned = {cell.run_id for cell in cells}
    before = read_plan(root) if (root / PLAN).exists() else []
    dropped = [cell for cell in before if cell.run_id not in planned]
    if dropped and not extend:
        raise CannotAnswer(
            f"{root} holds another plan ({len(dropped)} of its {len(before)} cells are not in this one, "
            f"e.g. {dropped[0].run_id}); choose another group=, or extend=true to keep both"
        )
    lines = [json.dumps(asdict(cell)) for cell in [*dropped, *cells]]
    write_text(root / PLAN, "\n".join(lines) + "\n")


def read_plan(root: Path) -> list[PlannedCell]:
    """Raises WrongInput when the plan is missing or a line is damaged."""
    path = root / PLAN
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise WrongInput(
            f"{path} does not exist; run `harness sweep` or `harness plan write=true` first"
        ) from error
    cells = []
    for number, line in enumerate(lines, start=1):
        try:
            cells.append(PlannedCell(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise WrongInput(f"{path} line {number} is damaged: {error}") from error
    return cells
